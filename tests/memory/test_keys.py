"""Keys, seals and key files."""

import base64

import pytest
from support.store_memories import ALICE, MODEL, small, step, write_versions
from support.store_sqlite import SqliteStorage

from hope_serve.errors import FailedPrecondition, Unavailable
from hope_serve.memory.key_file import load_key_file, parse_key_secret
from hope_serve.memory.keys import ANY_TENANT, NamedKey, TenantKeys, new_key, single_key
from hope_serve.memory.seal import Binding, SealBroken, Sealer

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(1, 33))).decode()


def write_keys(tmp_path, text, mode=0o600):
    path = tmp_path / "keys.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_key_file_that_begins_with_a_byte_order_mark_is_read(tmp_path):
    text = f'format = 1\n[tenants."*"]\ncurrent = "k1"\nkeys = {{ k1 = "{KEY}" }}\n'
    assert load_key_file(write_keys(tmp_path, "\ufeff" + text))


@pytest.mark.parametrize("encrypts", [True, False])
def test_a_seal_opens_at_its_own_place_with_its_own_key_only(encrypts):
    sealer = Sealer(new_key(), encrypts=encrypts)
    alice, bob = Binding(tenant="t", index="a"), Binding(tenant="t", index="b")
    sealed = sealer.seal(b"content", alice.chunk(MODEL, "1-x", "delta", 0))
    assert bytes(sealer.open(sealed, alice.chunk(MODEL, "1-x", "delta", 0))) == b"content"
    places = [
        bob.chunk(MODEL, "1-x", "delta", 0),
        Binding(tenant="u", index="a").chunk(MODEL, "1-x", "delta", 0),
        alice.chunk("other", "1-x", "delta", 0),
        alice.chunk(MODEL, "2-x", "delta", 0),
        alice.chunk(MODEL, "1-x", "delta2", 0),
        alice.chunk(MODEL, "1-x", "delta", 1),
        alice.manifest(1, 0),
    ]
    for place in places:
        with pytest.raises(SealBroken):
            sealer.open(sealed, place)
    with pytest.raises(SealBroken):
        Sealer(new_key(), encrypts=encrypts).open(sealed, alice.chunk(MODEL, "1-x", "delta", 0))
    with pytest.raises(SealBroken):
        Sealer(new_key(), encrypts=not encrypts).open(sealed, alice.chunk(MODEL, "1-x", "delta", 0))


def test_fields_of_a_binding_cannot_be_shifted_into_each_other():
    assert Binding(tenant="ab", index="c").about(1) != Binding(tenant="a", index="bc").about(1)


async def test_tenants_keys_do_not_open_each_others_data_keys():
    ring = single_key(new_key(), encrypts=True)
    wrapped = await ring.wrap("one", b"k" * 32, b"place")
    assert await ring.unwrap("one", wrapped, b"place") == b"k" * 32
    for tenant, place in (("two", b"place"), ("one", b"elsewhere")):
        with pytest.raises(SealBroken):
            await ring.unwrap(tenant, wrapped, place)


async def test_a_key_file_gives_each_tenant_its_ring(tmp_path):
    path = write_keys(
        tmp_path,
        f'format = 1\n[tenants."*"]\ncurrent = "b"\nkeys = {{ a = "{KEY}", b = "{OTHER}" }}\n'
        f'[tenants.acme]\ncurrent = "x"\nkeys = {{ x = "{KEY}" }}\n',
    )
    ring = load_key_file(path)
    assert ring.encrypts
    old = TenantKeys({ANY_TENANT: (NamedKey(id="a", secret=base64.b64decode(KEY)),)})
    wrapped = await old.wrap("t", b"k" * 32, b"p")
    assert await ring.unwrap("t", wrapped, b"p") == b"k" * 32
    assert not ring.is_current("t", wrapped)
    assert ring.is_current("acme", await ring.wrap("acme", b"k" * 32, b"p"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("format = 2\n[tenants]\n", "format 2"),
        ("not toml", "not a key file"),
        ('format = 1\n[tenants.a]\ncurrent = "x"\nkeys = { x = "' + KEY + '" }\n', "missing"),
        ('format = 1\n[tenants."*"]\ncurrent = "y"\nkeys = { x = "' + KEY + '" }\n', "current key 'y'"),
        ('format = 1\n[tenants."*"]\ncurrent = "x"\nkeys = { x = "AAAA" }\n', "3 bytes"),
        ('format = 1\n[tenants."*"]\ncurrent = "x"\nkeys = { x = "!!" }\n', "not base64"),
        ('format = 1\nextra = 1\n[tenants."*"]\ncurrent = "x"\nkeys = {}\n', "not a key file"),
    ],
)
def test_a_wrong_key_file_is_refused_by_what_is_wrong_and_tells_no_secret(tmp_path, text, says):
    with pytest.raises(FailedPrecondition, match=says) as caught:
        load_key_file(write_keys(tmp_path, text))
    assert KEY not in str(caught.value)


def test_a_key_file_that_others_can_read_is_refused(tmp_path):
    path = write_keys(tmp_path, f'format = 1\n[tenants."*"]\ncurrent = "x"\nkeys = {{ x = "{KEY}" }}\n', 0o644)
    with pytest.raises(FailedPrecondition, match="chmod 600"):
        load_key_file(path)
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        load_key_file(tmp_path / "absent.toml")


async def test_a_secret_gives_keys_with_the_current_one_first():
    ring = parse_key_secret(f"b:{OTHER}, a:{KEY}")
    old = parse_key_secret(f"a:{KEY}")
    wrapped = await old.wrap("t", b"k" * 32, b"p")
    assert await ring.unwrap("t", wrapped, b"p") == b"k" * 32
    for wrong in ("", "a", f"a:{KEY},a:{OTHER}", "a:AAAA"):
        with pytest.raises(FailedPrecondition, match="refused"):
            parse_key_secret(wrong)
    assert KEY not in repr(NamedKey(id="a", secret=base64.b64decode(KEY)))


class Kms:
    """A key-management service as a KeyRing: away at times."""

    encrypts = True

    def __init__(self):
        self._ring = single_key(new_key(), encrypts=True)
        self.down = False
        self.calls = 0

    async def wrap(self, tenant, key, binding):
        return await self._called(self._ring.wrap(tenant, key, binding))

    async def unwrap(self, tenant, wrapped, binding):
        return await self._called(self._ring.unwrap(tenant, wrapped, binding))

    def is_current(self, tenant, wrapped):
        return self._ring.is_current(tenant, wrapped)

    async def _called(self, call):
        self.calls += 1
        if self.down:
            call.close()
            raise Unavailable("the key service does not answer")
        return await call


async def test_a_key_service_is_asked_once_for_each_owner_and_may_be_away_for_known_ones(tmp_path):
    kms = Kms()
    storage = SqliteStorage(tmp_path, kms)
    store = await storage.store()
    await write_versions(store, ALICE, 1)
    asked = kms.calls
    await write_versions(store, ALICE, 3, first=2)
    assert kms.calls == asked
    kms.down = True
    assert (await store.load(ALICE, fingerprint=MODEL)).version == 4
    fresh_calls = SqliteStorage(tmp_path, kms)
    with pytest.raises(Unavailable, match="key service"):
        await fresh_calls.store()
    kms.down = False
    fresh = await fresh_calls.store()
    kms.down = True
    with pytest.raises(Unavailable, match="key service"):
        await fresh.commit(ALICE, step(4, small(5)))
    kms.down = False
    assert (await fresh.commit(ALICE, step(4, small(5)))).version == 5
    await fresh_calls.close()
    await storage.close()
