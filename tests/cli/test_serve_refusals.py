"""What ``serve`` will not start with: an exit code, one sentence, and every file as it was."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import socket
import sqlite3
from contextlib import closing

import pytest
from support.server_running import connect, server_config
from support.tiny_model import write_tiny_checkpoint

from hope_serve.server.serve import running

REFUSED, WRONG = 1, 2
NOTHING = ""
SUMMED = ("config.json", "model.safetensors", "tokenizer.json")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A checkpoint, and a store in which somebody has a memory."""
    folder = tmp_path_factory.mktemp("pristine")
    config = server_config(write_tiny_checkpoint(folder / "model"), folder)

    async def teach():
        async with running(config) as server, connect(server) as client:
            await client.adapt("ann", "My dog is called Biscuit.")

    asyncio.run(teach())
    return folder


@pytest.fixture
def home(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "home")


@pytest.fixture
def serve(hope, home):
    def start(*arguments):
        given = ("--checkpoint", home / "model", "--memory", f"sqlite://{home}/memory.db")
        return hope("serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", *given, *arguments)

    return start


def flipped(name):
    def change(path):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return name, change


def cut(name, share):
    return name, lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def filled(name, data):
    return name, lambda path: path.write_bytes(data)


def removed(name):
    return name, lambda path: path.unlink()


def edited(statement):
    def change(path):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement)

    return "memory.db", change


def keyed(**changes):
    return "memory.db.key", lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | changes))


FILES = [
    ("config.json with a byte changed", flipped("model/config.json"), WRONG, ("config.json", "sha256", "fetch")),
    ("weights with a byte changed", flipped("model/model.safetensors"), WRONG, ("model.safetensors", "SHA256SUMS")),
    ("tokenizer with a byte changed", flipped("model/tokenizer.json"), WRONG, ("tokenizer.json", "sha256", "fetch")),
    ("sums with a byte changed", flipped("model/SHA256SUMS"), WRONG, ("SHA256SUMS says", "fetch")),
    ("half of the weights", cut("model/model.safetensors", 0.5), WRONG, ("model.safetensors", "partly copied")),
    ("no weights", removed("model/model.safetensors"), WRONG, ("has no model.safetensors", "config.json")),
    ("no sums", removed("model/SHA256SUMS"), WRONG, ("has no SHA256SUMS",)),
    ("half of the database", cut("memory.db", 0.5), REFUSED, ("memory.db is damaged", "restore", "CORRUPT_MEMORY")),
    ("a page of the database", cut("memory.db", 0.05), REFUSED, ("memory.db is damaged", "restore")),
    ("an empty database", filled("memory.db", b""), REFUSED, ("missing or empty", "memory.db.key", "restore")),
    ("no database", removed("memory.db"), REFUSED, ("missing or empty", "memory.db.key", "restore")),
    ("a text for a database", filled("memory.db", b"hello " * 999), REFUSED, ("not a database", "restore")),
    ("another program's database", edited("PRAGMA application_id = 7"), REFUSED, ("another program", "another file")),
    ("a newer database", edited("PRAGMA user_version = 99"), REFUSED, ("schema 99", "SCHEMA_VERSION")),
    ("an edited secret", edited("UPDATE meta SET value = x'00'"), REFUSED, ("secret", "KEY_MISMATCH")),
    ("no key file", removed("memory.db.key"), REFUSED, ("memory.db.key is not", "put the key file back")),
    ("half a key file", cut("memory.db.key", 0.5), REFUSED, ("memory.db.key is damaged", "restore")),
    ("another key", keyed(key="00" * 32), REFUSED, ("KEY_MISMATCH", "key the store was made with")),
    ("a short key", keyed(key="00"), REFUSED, ("memory.db.key", "1 bytes", "restore")),
    ("a newer key file", keyed(format=9), REFUSED, ("memory.db.key", "format 9", "restore")),
]


@pytest.mark.parametrize(("damage", "code", "words"), [pytest.param(*row[1:], id=row[0]) for row in FILES])
def test_a_damaged_file_is_named_and_left_as_it_is(serve, home, damage, code, words):
    name, change = damage
    change(home / name)
    before = contents(home)
    said = serve()
    assert (said.code, said.out) == (code, NOTHING), said
    for word in words:
        assert word in said.err
    assert contents(home) == before


def contents(home):
    files = [path for path in home.rglob("*") if path.is_file() and path.suffix not in (".db-wal", ".db-shm")]
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in files}


def rewritten(name, change):
    def edit(model):
        tree = json.loads((model / name).read_text())
        change(tree)
        (model / name).write_text(json.dumps(tree))

    return edit


def add_token(tokenizer):
    tokenizer["model"]["vocab"]["zqx"] = len(tokenizer["model"]["vocab"])


FOREIGN = [
    ("a tokenizer that is none", rewritten("tokenizer.json", dict.clear), "tokenizer.json: this is no tokenizer file"),
    ("too many tokens", rewritten("tokenizer.json", add_token), "tokenizer.json has ids up to"),
    ("ten million layers", rewritten("config.json", lambda c: c.update(num_layers=10**7)), "num_layers is 10000000"),
    ("too many layers", rewritten("config.json", lambda c: c.update(num_layers=1000)), "num_layers is 1000"),
]


@pytest.mark.parametrize("command", ["serve", "doctor"])
@pytest.mark.parametrize(("edit", "words"), [pytest.param(*row[1:], id=row[0]) for row in FOREIGN])
def test_a_checkpoint_from_elsewhere_that_cannot_be_is_one_clear_line(hope, home, command, edit, words):
    model = home / "model"
    edit(model)
    sums = (f"{hashlib.sha256((model / name).read_bytes()).hexdigest()}  {name}\n" for name in SUMMED)
    (model / "SHA256SUMS").write_text("".join(sums))
    said = hope(command, "--checkpoint", model, "--memory", f"sqlite://{home}/memory.db")
    assert said.code == (WRONG if command == "serve" else 1)
    assert words in " ".join((said.err if command == "serve" else said.out).split())
    assert "Traceback" not in said.err + said.out


CONFIGS = [
    ("[server]\nlisen = 'x:1'", ("server.lisen is unknown", "listen")),
    ("colour = 1", ("colour is unknown", "engine, identity, memory, model, server, ")),
    ("[server]\ndrain_seconds = nan", ("server.drain_seconds is nan", "[0, 86400]")),
    ("[server]\nlog_level = 'loud'", ("server.log_level is 'loud'", "debug")),
    ("[engine]\nmax_slots = 0", ("engine.max_slots is 0", "[1, 65536]")),
    ("[engine]\nmax_slots = 99999999999999999999", ("engine.max_slots is 99999999999999999999", "65536")),
    ("[engine]\nmax_slots = 'many'", ("engine.max_slots is 'many'", "int")),
    ("[engine]\nmax_slots = 2020-01-01", ("engine.max_slots", "2020", "int")),
    ("[engine]\ndeterministic = 1", ("engine.deterministic is 1", "bool")),
    ("[server", ("is not TOML",)),
    ("\0", ("is not TOML",)),
]


@pytest.mark.parametrize(("text", "words"), CONFIGS, ids=[text.replace("\n", " ") for text, _ in CONFIGS])
def test_a_configuration_that_is_not_allowed_is_refused_by_file_and_key(serve, tmp_path, text, words):
    file = tmp_path / "hope.toml"
    file.write_text(text)
    said = serve("--config", file)
    assert (said.code, said.out) == (WRONG, NOTHING)
    for word in (str(file), *words):
        assert word in said.err


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--listen", "nowhere", ("server.listen", "nowhere", "host:port")),
        ("--listen", "127.0.0.1:99999", ("server.listen", "99999", "65535")),
        ("--listen", "0.0.0.0:0", ("server.listen is 0.0.0.0:0", "anybody", "tls.certificate", "--insecure")),
        ("--set", "tls.certificate=a", ("tls.certificate and private_key",)),
        ("--metrics-listen", "127.0.0.1", ("server.metrics_listen", "host:port")),
        ("--metrics-listen", "no.such.host.invalid:1", ("server.metrics_listen", "cannot be bound", "choose")),
        ("--checkpoint", "/nowhere", ("model.checkpoint /nowhere", "has no config.json")),
        ("--config", "/nowhere.toml", ("/nowhere.toml", "cannot be read")),
        ("--memory", "nonsense", ("'nonsense' names no store", "sqlite:///path")),
        ("--memory", "ftp://x", ("'ftp://x' names no store", "redis://host:port")),
        ("--memory", "sqlite://relative/x", ("names no file", "three slashes")),
        ("--memory", "redis://host:port", ("host:port",)),
    ],
)
def test_a_flag_that_is_not_allowed_is_refused_by_name_and_value(serve, option, value, words):
    said = serve(option, value)
    assert (said.code, said.out) == (WRONG, NOTHING)
    for word in words:
        assert word in said.err


@pytest.mark.parametrize(
    ("option", "key"), [("--listen", "server.listen"), ("--metrics-listen", "server.metrics_listen")]
)
def test_a_port_that_is_taken_is_named(serve, option, key):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = serve(option, address)
    assert (said.code, said.out) == (WRONG, NOTHING)
    for word in (key, address, "cannot be bound", "another port"):
        assert word in said.err


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--device", "toaster", ("model.device", "toaster", "cpu")),
        ("--memory", "sqlite:////dev/null/memory.db", ("memory", "/dev/null")),
    ],
)
def test_a_device_or_folder_that_cannot_be_had_is_named(serve, option, value, words):
    said = serve(option, value)
    assert said.code == WRONG
    for word in words:
        assert word in said.err
