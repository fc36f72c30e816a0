"""The Redis store's keys, as the contract tests handle any store's: open it again, reach under it."""

import redis
from support.store_sqlite import Spot

from hope_serve.memory.redis.make import install_functions
from hope_serve.memory.url import make_store

_HASHES = {
    "manifest": ("n", None),
    "about": ("v", None),
    "result": ("i", None),
    "data_key": ("m", "key"),
    "head_seal": ("m", "seal"),
}
_HEAD_FIELDS = {"version": "ver", "tomb": "tomb", "num_bytes": "bytes", "updated_at": "upd", "mark": "mark"}


class RedisStorage:
    """The store's keys on one server that is running, emptied first."""

    def __init__(self, server, keys=None, *, query="durability=volatile"):
        self.server = server
        self.keys = keys
        self.url = f"{server.url}?{query}"
        self._open = []
        self._client = redis.Redis(port=server.port, protocol=2)

    async def prepare(self):
        self._client.flushall()
        await install_functions(self.server.url)

    async def store(self, **options):
        """A store of its own on the keys, as another pod would have."""
        store = make_store(self.url, keys=options.pop("keys", self.keys), **options)
        await store.open()
        self._open.append(store)
        return store

    async def close(self):
        for store in self._open:
            await store.close()
        self._client.close()

    async def spots(self, kind, owner):
        """Where the owner's values of this kind rest, in order. ``owner`` is the index of one."""
        prefix = f"hs:{{{owner}}}:"
        if kind in ("chunks", "session_chunks"):
            letter = "c" if kind == "chunks" else "t"
            keys = sorted(self._client.scan_iter(f"{prefix}{letter}:*"))
            spots = [(key, field) for key in keys for field in sorted(self._client.hkeys(key), key=int)]
            found = [Spot(kind, "", (owner, key.decode().rpartition(":")[2], int(field))) for key, field in spots]
            return sorted(found, key=lambda spot: int(spot.row[1].split("-")[0])) if kind == "chunks" else found
        if kind == "session":
            return [Spot(kind, "", (owner, key.decode())) for key in self._client.scan_iter(f"{prefix}s:*")]
        letter, field = _HASHES[kind]
        fields = [field.encode()] if field else self._client.hkeys(prefix + letter)
        there = [name for name in fields if self._client.hget(prefix + letter, name)]
        names = sorted(int(name) if name.isdigit() and kind != "result" else name.decode() for name in there)
        return [Spot(kind, "", (owner, name)) for name in names]

    async def get(self, spot):
        value = self._client.hget(*self._place(spot))
        return value.split(b"|", 2)[2] if spot.kind == "about" else value

    async def put(self, spot, value):
        """Set the value; None removes it."""
        key, field = self._place(spot)
        if value is None:
            self._client.hdel(key, field)
        elif spot.kind == "about":
            mark = self._client.hget(key, field).split(b"|", 2)[:2]
            self._client.hset(key, field, b"|".join([*mark, value]))
        else:
            self._client.hset(key, field, value)

    async def head(self, owner):
        """The head's readable fields."""
        values = self._client.hmget(f"hs:{{{owner}}}:m", list(_HEAD_FIELDS.values()))
        return int(values[0]), int(values[1]), int(values[2]), float(values[3]), values[4].decode()

    async def put_head(self, owner, field, value):
        self._client.hset(f"hs:{{{owner}}}:m", _HEAD_FIELDS[field], str(value))

    async def everything(self):
        """Every stored byte, and every key."""
        found = []
        for key in self._client.scan_iter("*"):
            found.append(key)
            found.append(self._client.dump(key) or b"")
            if self._client.type(key) == b"hash":
                found += [part for pair in self._client.hgetall(key).items() for part in pair]
        return b"\n".join(found)

    def _place(self, spot):
        prefix = f"hs:{{{spot.row[0]}}}:"
        if spot.kind == "chunks":
            return f"{prefix}c:{spot.row[1]}", spot.row[2]
        if spot.kind == "session_chunks":
            return f"{prefix}t:{spot.row[1]}", spot.row[2]
        if spot.kind == "session":
            return spot.row[1], "man"
        return prefix + _HASHES[spot.kind][0], spot.row[1]
