"""A Redis in memory that runs the real function library in a real Lua: keys, effects, no network and no disk."""

from lupa import lua51

WRITES = {b"HSET", b"HDEL", b"PERSIST", b"PEXPIRE", b"UNLINK", b"SET", b"ZADD"}


class Keys:
    """The keys of one server. ``effects`` lists the writes since it was last emptied, as a replica would get them."""

    def __init__(self, clock):
        self.data = {}
        self.expiry = {}
        self.effects = []
        self.published = []
        self._clock = clock

    def copy(self):
        twin = Keys(self._clock)
        twin.data = {key: value.copy() if isinstance(value, (dict, set)) else value for key, value in self.data.items()}
        twin.expiry = dict(self.expiry)
        return twin

    def apply(self, effects):
        for command in effects:
            self.call(*command)
        self.effects.clear()

    def call(self, name, *arguments):
        """Run one command; names and arguments are bytes."""
        if arguments and self.expiry and self.expiry.get(arguments[0], self._clock()) < self._clock():
            self._remove(arguments[0])
        before = len(self.effects)
        reply = getattr(self, f"_{name.decode().lower()}")(*arguments)
        if name in WRITES:
            del self.effects[before:]
            if reply is not None:  # SET NX on a key that is there writes nothing, and there is nothing to wait for
                self.effects.append((name, *arguments))
        return reply

    def _remove(self, key):
        self.expiry.pop(key, None)
        return int(self.data.pop(key, None) is not None)

    def _hget(self, key, field):
        return self.data.get(key, {}).get(field)

    def _hmget(self, key, *fields):
        held = self.data.get(key, {})
        return [held.get(field) for field in fields]

    def _hset(self, key, *pairs):
        held = self.data.setdefault(key, {})
        held.update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(pairs) // 2

    def _hdel(self, key, *fields):
        held = self.data.get(key, {})
        count = sum(held.pop(field, None) is not None for field in fields)
        if not held:
            self._remove(key)
        return count

    def _hlen(self, key):
        return len(self.data.get(key, ()))

    def _hexists(self, key, field):
        return int(field in self.data.get(key, ()))

    def _hkeys(self, key):
        return list(self.data.get(key, ()))

    def _hgetall(self, key):
        return [part for pair in self.data.get(key, {}).items() for part in pair]

    def _exists(self, key):
        return int(key in self.data)

    def _unlink(self, *keys):
        return sum(self._remove(key) for key in keys)

    def _persist(self, key):
        return int(self.expiry.pop(key, None) is not None)

    def _pexpire(self, key, milliseconds):
        if key in self.data:
            self.expiry[key] = self._clock() + int(milliseconds) / 1000
        return int(key in self.data)

    def _get(self, key):
        return self.data.get(key)

    def _set(self, key, value, *options):
        if b"NX" in options and key in self.data:
            return None
        self.data[key] = value
        return b"OK"

    def _zadd(self, key, _score, member):
        self.data.setdefault(key, set()).add(member)
        return 1

    def _zrangebylex(self, key, low, _high, _limit, _offset, count):
        members = sorted(self.data.get(key, ()))
        if low[:1] == b"(":
            members = [member for member in members if member > low[1:]]
        elif low[:1] == b"[":
            members = [member for member in members if member >= low[1:]]
        return members if int(count) < 0 else members[: int(count)]

    def _publish(self, _channel, message):
        self.published.append(message)
        return 0


class Functions:
    """A loaded library. One Lua serves all servers of a run: ``keys`` says whose keys a call works on."""

    def __init__(self, text):
        self._lua = lua51.LuaRuntime(encoding=None, unpack_returned_tuples=True)
        self._functions = {}
        self._keys = None
        table = self._lua.table_from
        self._lua.globals()[b"redis"] = table({b"call": self._call, b"register_function": self._register})
        self._lua.execute(text.partition("\n")[2].encode())

    def run(self, keys, name, key_names, arguments):
        """Call a function on these keys; the reply as a client gets it."""
        self._keys = keys
        table = self._lua.table_from
        return self._reply(self._functions[name](table(key_names), table(arguments)))

    def _register(self, entry):
        self._functions[bytes(entry[b"function_name"])] = entry[b"callback"]

    def _call(self, name, *arguments):
        reply = self._keys.call(name, *(_argument(argument) for argument in arguments))
        if isinstance(reply, list):
            return self._lua.table_from([False if part is None else part for part in reply])
        return False if reply is None else reply

    def _reply(self, value):
        if value is False or value is None:
            return None
        if isinstance(value, (bytes, int)):
            return value
        if isinstance(value, float):
            return int(value)
        return [self._reply(value[position]) for position in range(1, len(value) + 1)]


def _argument(value):
    if isinstance(value, bytes):
        return value
    return b"%d" % value if float(value).is_integer() else repr(value).encode()
