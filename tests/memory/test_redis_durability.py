"""What makes a wait for the disk mean something: every answer that promises a commit has written on its connection."""

from support.redis_storage import RedisStorage
from support.store_memories import ALICE, small, step

from hope_serve.memory.store import Duplicate


def changes(server) -> int:
    """Writes that the server has counted since it began."""
    lines = server.command("INFO", "persistence").decode().splitlines()
    return next(int(line.partition(":")[2]) for line in lines if line.startswith("rdb_changes_since_last_save:"))


async def test_an_answer_from_the_journal_writes_so_that_the_wait_covers_it(redis_server):
    """The commit may be another connection's, and a wait covers only what one's own connection wrote last."""
    storage = RedisStorage(redis_server)
    await storage.prepare()
    try:
        store, other = await storage.store(), await storage.store()
        await store.commit(ALICE, step(0, small(1), request_id="r1"))
        for ask in (
            lambda: other.find_request(ALICE, "r1", "d"),
            lambda: other.commit(ALICE, step(0, small(1), request_id="r1")),
            lambda: other.commit(ALICE, step(1, small(1), request_id="r1")),
        ):
            before = changes(redis_server)
            assert isinstance(await ask(), Duplicate)
            assert changes(redis_server) > before
        before = changes(redis_server)
        assert await other.find_request(ALICE, "never", "d") is None
        assert changes(redis_server) == before
    finally:
        await storage.close()
