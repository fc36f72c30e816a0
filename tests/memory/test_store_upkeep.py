"""What jobs do to a whole store, and what is put on record."""

import json
import stat

import pytest
from support.store_memories import ALICE, BOB, MODEL, memory, small, step, write_versions

from hope_serve.api import Owner
from hope_serve.errors import Exhausted, FailedPrecondition
from hope_serve.memory.audit import AuditFile
from hope_serve.memory.expiry import Terms
from hope_serve.memory.keys import ANY_TENANT, NamedKey, TenantKeys, new_key
from hope_serve.memory.options import StoreOptions
from hope_serve.memory.quotas import Quotas
from hope_serve.memory.store import Committed, Gone

CAROL = Owner(tenant="other", user="carol")


class Clock:
    now = 1_800_000_000.0

    def __call__(self):
        return self.now


def keys(*ids):
    return TenantKeys({ANY_TENANT: tuple(KEYS[name] for name in ids)})


KEYS = {name: NamedKey(id=name, secret=new_key()) for name in ("old", "new")}


@pytest.fixture
def encrypted(storage):
    storage.keys = keys("old")
    return storage


async def test_keys_are_rotated_without_touching_what_they_seal(encrypted):
    store = await encrypted.store()
    for owner in (ALICE, BOB, CAROL):
        await write_versions(store, owner, 3, make=memory)
    both = await encrypted.store(keys=keys("new", "old"))
    await write_versions(both, Owner(tenant="acme", user="dora"), 1)
    done = await both.upkeep.rotate_keys()
    assert (done.seen, done.changed, done.damaged) == (4, 3, ())
    assert (await both.upkeep.rotate_keys()).changed == 0
    new = await encrypted.store(keys=keys("new"))
    for owner in (ALICE, BOB, CAROL):
        assert (await new.load(owner, fingerprint=MODEL)).version == 3
    with pytest.raises(FailedPrecondition, match="'new'"):
        await encrypted.store(keys=keys("old"))


async def test_without_the_former_key_nothing_opens_before_rotation(encrypted):
    store = await encrypted.store()
    await write_versions(store, ALICE, 1)
    with pytest.raises(FailedPrecondition, match=r"'old'.*'new'"):
        await encrypted.store(keys=keys("new"))


async def test_a_damaged_owner_does_not_stop_the_rotation_of_others(encrypted):
    store = await encrypted.store()
    for owner in (ALICE, BOB):
        await write_versions(store, owner, 1)
    spot = (await encrypted.spots("data_key", store.owner_key(ALICE)))[0]
    await encrypted.put(spot, b"damaged")
    done = await (await encrypted.store(keys=keys("new", "old"))).upkeep.rotate_keys()
    assert done.damaged == (store.owner_key(ALICE),)
    assert done.changed == 1


async def test_memories_that_lie_idle_are_erased_by_the_job(storage):
    clock = Clock()
    store = await storage.store(options=StoreOptions(clock=clock))
    await write_versions(store, ALICE, 2)
    clock.now += 1000
    await write_versions(store, BOB, 1)
    terms = Terms(idle_seconds=500, grace_seconds=100, max_gap_seconds=200)
    done = await store.upkeep.expire(terms)
    assert (done.seen, done.quarantined, done.erased) == (2, 1, 0)
    clock.now += 100
    assert (await store.upkeep.expire(terms)).erased == 1
    assert not (await store.head(ALICE)).exists
    assert (await store.head(BOB)).exists
    assert isinstance(await store.commit(ALICE, step(2, small(3))), Gone)


async def test_a_users_quota_is_told_with_size_and_limit(storage):
    store = await storage.store(options=StoreOptions(quotas=Quotas(user_bytes=1000)))
    with pytest.raises(Exhausted, match=r"user's quota.*1000") as caught:
        await store.commit(ALICE, step(0, memory(1)))
    assert caught.value.reason == "QUOTA"
    assert isinstance(await store.commit(ALICE, step(0, small(1))), Committed)


async def test_a_tenants_quota_of_bytes_counts_current_versions_and_is_given_back_by_erasure(storage):
    size = small(1).num_bytes
    store = await storage.store(options=StoreOptions(quotas=Quotas(tenant_bytes=2 * size)))
    users = [Owner(tenant="acme", user=f"u{number}") for number in range(3)]
    await write_versions(store, users[0], 5)
    await write_versions(store, users[1], 1)
    with pytest.raises(Exhausted, match="tenant's quota"):
        await store.commit(users[2], step(0, small(1)))
    assert isinstance(await store.commit(CAROL, step(0, small(1))), Committed)
    assert isinstance(await store.commit(users[0], step(5, small(6))), Committed)
    await store.erase(users[1])
    assert isinstance(await store.commit(users[2], step(0, small(1))), Committed)


async def test_a_tenants_quota_of_users_is_kept(storage):
    store = await storage.store(options=StoreOptions(quotas=Quotas(tenant_users=1)))
    await write_versions(store, ALICE, 1)
    with pytest.raises(Exhausted, match="1 of its users"):
        await store.commit(BOB, step(0, small(1)))
    assert isinstance(await store.commit(ALICE, step(1, small(2))), Committed)


async def test_usage_that_was_lost_is_counted_again(storage):
    store = await storage.store(options=StoreOptions(quotas=Quotas(tenant_users=2)))
    await write_versions(store, ALICE, 1)
    tenant = store._owners.index.tenant("acme")
    await store._backend.count_usage(tenant, store.owner_key(ALICE), 0)
    await store.upkeep.recount()
    usage = await store._backend.usage(tenant)
    assert (usage.owners, usage.num_bytes) == (1, small(1).num_bytes)


async def test_every_change_is_on_record_and_no_name_or_text_is(storage, tmp_path):
    log = AuditFile(tmp_path / "audit.jsonl")
    store = await storage.store(options=StoreOptions(audit=log))
    await store.commit(ALICE, step(0, small(1), request_id="visible-request"))
    await store.commit(ALICE, step(0, small(1), request_id="visible-request"))
    await store.rollback(ALICE, to_version=1, request_id="back")
    await store.erase(ALICE)
    log.close()
    text = (tmp_path / "audit.jsonl").read_text()
    events = [json.loads(line) for line in text.splitlines()]
    assert [(event["action"], event["version"]) for event in events] == [("commit", 1), ("rollback", 2), ("erase", 3)]
    assert {event["owner"] for event in events} == {store.owner_key(ALICE)}
    assert not any(name in text for name in ("alice", "acme", "visible-request"))
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600
