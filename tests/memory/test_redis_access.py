"""Who may do what on the server: credentials, TLS, and the functions that only their installer may load."""

import datetime
import hashlib
import ipaddress
import re
import shutil

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.redis_server import RedisServer
from support.store_memories import ALICE, MODEL, memory, small, write_versions

from hope_serve.errors import FailedPrecondition, InvalidRequest, Unavailable
from hope_serve.memory.redis import library
from hope_serve.memory.redis.acl import acl_rules
from hope_serve.memory.redis.address import Mode, parse_address
from hope_serve.memory.redis.make import install_functions
from hope_serve.memory.store import StoredSession
from hope_serve.memory.url import make_store


@pytest.fixture
def server(tmp_path):
    server = RedisServer(tmp_path / "server", appendonly="no").start()
    server.command("ACL", "SETUSER", "serving", "on", ">s", *acl_rules())
    server.command("ACL", "SETUSER", "installer", "on", ">i", *acl_rules(installer=True))
    yield server
    server.kill()


def url(server, credential):
    return f"redis://{credential}@127.0.0.1:{server.port}?durability=volatile"


async def test_the_serving_user_can_do_all_that_a_store_does_and_nothing_else(server):
    await install_functions(url(server, "installer:i"))
    store = make_store(url(server, "serving:s"))
    await store.open()
    await write_versions(store, ALICE, 5, make=memory)
    await store.rollback(ALICE, to_version=3, request_id="back")
    assert (await store.find_request(ALICE, "request-4", "d")).version == 5
    assert len(await store.versions(ALICE)) == 6
    session = StoredSession(turn=1, base_version=6, snapshot=small(1))
    await store.save_session(ALICE, "chat", session, ttl_seconds=60)
    assert (await store.load_session(ALICE, "chat", fingerprint=MODEL)).turn == 1
    assert await store.delete_session(ALICE, "chat")
    assert [summary.user for summary in (await store.list_owners("acme"))[0]] == ["alice"]
    await store.erase(ALICE)
    await store.close()
    for command in (
        ["FLUSHALL"],
        ["KEYS", "*"],
        ["SET", "other", 1],
        ["FUNCTION", "LOAD", "#!lua name=x"],
        ["DEBUG", "X"],
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            server.command(*command, username="serving", password="s")


async def test_the_serving_user_cannot_install_functions(server):
    with pytest.raises(FailedPrecondition, match="credential"):
        await install_functions(url(server, "serving:s"))


async def test_installing_again_keeps_the_epoch(server):
    epoch = await install_functions(url(server, "installer:i"))
    assert await install_functions(url(server, "installer:i")) == epoch


async def test_a_wrong_password_is_told(server):
    with pytest.raises(FailedPrecondition, match="credential"):
        await install_functions(url(server, "installer:wrong"))


@pytest.fixture
def certificate(tmp_path):
    """Paths of a certificate for 127.0.0.1 that vouches for itself, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hope-test")])
    today = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    return tmp_path / "cert.pem", tmp_path / "key.pem"


async def test_a_store_behind_tls_works_and_an_unknown_certificate_is_refused(tmp_path, certificate):
    path, key = certificate
    server = RedisServer(tmp_path / "tls", binary=shutil.which("redis-server"), appendonly="no")
    tls = RedisServer(tmp_path / "tls", appendonly="no")
    server.settings |= {
        "tls-port": tls.port,
        "tls-cert-file": path,
        "tls-key-file": key,
        "tls-ca-cert-file": path,
        "tls-auth-clients": "no",
    }
    try:
        server.start()
    except RuntimeError:
        pytest.skip("the server at hand was built without TLS")
    secure = f"rediss://127.0.0.1:{tls.port}?durability=volatile&ca={path}"
    await install_functions(secure)
    store = make_store(secure)
    await store.open()
    await write_versions(store, ALICE, 2, make=memory)
    assert (await store.load(ALICE, fingerprint=MODEL)).version == 2
    await store.close()
    stranger = make_store(f"rediss://127.0.0.1:{tls.port}?durability=volatile")
    with pytest.raises(Unavailable, match="CERTIFICATE"):
        await stranger.open()
    server.kill()


def test_a_redis_url_says_where_and_how():
    address = parse_address("rediss://me:p%40ss@a:1,b,[::1]:3/?cluster=1&durability=replicated_fsync&ca=/x.pem")
    assert address.hosts == (("a", 1), ("b", 6379), ("::1", 3))
    assert (address.username, address.password, address.tls, address.certificate) == ("me", "p@ss", True, "/x.pem")
    assert (address.mode, address.durability.value) == (Mode.CLUSTER, "replicated_fsync")
    sentinel = parse_address("redis://h/2?sentinel=m")
    assert (sentinel.mode, sentinel.master, sentinel.database) == (Mode.SENTINEL, "m", 2)
    assert "p@ss" not in repr(address)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("redis://a,b", "several hosts"),
        ("redis://a?durability=maybe", "durability 'maybe'"),
        ("redis://a?sentinel=m&cluster=1", "give one"),
        ("redis://a?colour=red", "colour"),
        ("redis://a/x", "database 'x'"),
        ("redis://a:99999", "host:port"),
        ("redis://", "host:port"),
    ],
)
def test_a_wrong_redis_url_is_refused_by_part(given, says):
    with pytest.raises(InvalidRequest, match=says):
        make_store(given)


@pytest.mark.parametrize("command", ["time", "info", "get"])
async def test_a_right_that_a_new_release_needs_is_named_with_the_command_that_gives_it(tmp_path, command):
    """As a user finds it who was set up for a former release."""
    server = RedisServer(tmp_path / "server").start()
    try:
        server.command("ACL", "SETUSER", "serving", "on", ">s", *acl_rules())
        server.command("ACL", "SETUSER", "serving", f"-{command}")
        await install_functions(server.url)
        store = make_store(f"redis://serving:s@127.0.0.1:{server.port}?durability=local_fsync")
        with pytest.raises(FailedPrecondition, match=rf"ACL SETUSER <user> \+{re.escape(command)}"):
            await store.open()
        server.command("ACL", "SETUSER", "serving", f"+{command}")
        store = make_store(f"redis://serving:s@127.0.0.1:{server.port}?durability=local_fsync")
        await store.open()
        await store.close()
    finally:
        server.kill()


async def test_functions_of_a_former_release_are_refused_with_the_command_that_brings_the_new_ones(server, monkeypatch):
    epoch = await install_functions(url(server, "installer:i"))
    text = library.library_text(epoch)
    former = text.replace("return {FORMAT, EPOCH, REVISION}", "return {FORMAT, EPOCH}")
    assert former != text
    server.command("FUNCTION", "LOAD", "REPLACE", former)
    store = make_store(url(server, "serving:s"))
    with pytest.raises(FailedPrecondition, match=r"revision 1, older than .* `hope-serve memory install-fu") as refused:
        await store.open()
    assert refused.value.reason == "STORE_FUNCTIONS"
    assert await install_functions(url(server, "installer:i")) == epoch
    store = make_store(url(server, "serving:s"))
    await store.open()
    await write_versions(store, ALICE, 1, make=memory)
    await store.close()
    monkeypatch.setattr(library, "LIBRARY_REVISION", library.LIBRARY_REVISION - 1)  # a pod of the release before
    store = make_store(url(server, "serving:s"))
    await store.open()
    await store.close()


def test_a_change_of_the_functions_has_a_revision_of_its_own():
    """On failure: raise REVISION in 1_record.lua and LIBRARY_REVISION in library.py, and note the new digest here."""
    text = library.library_text("@EPOCH@")
    assert f"local REVISION = '{library.LIBRARY_REVISION}'" in text
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "acaf8e4341ceac91"
