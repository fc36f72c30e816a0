"""One TOML file, a few variables, flags: what goes before what, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

import pytest

from hope_serve.config import Config, ConfigError, default_target, load_config, memory_key_secret, parse_setting
from hope_serve.memory.url_parts import split_url

ROOT = Path(__file__).parents[2]


def test_the_example_file_holds_every_key_at_its_default():
    example = load_config(ROOT / "deploy" / "hope.toml", environ={"XDG_DATA_HOME": "/data"})
    assert example == load_config(environ={"XDG_DATA_HOME": "/data"})
    text = (ROOT / "deploy" / "hope.toml").read_text()
    for section in Config.__struct_fields__:
        assert f"[{section}]" in text
        for key in getattr(example, section).__struct_fields__:
            assert f"\n{key} = " in text or f"\n# {key} = " in text


def test_flags_go_before_variables_and_these_before_the_file(tmp_path):
    file = tmp_path / "hope.toml"
    file.write_text('[server]\nlisten = "file:1"\nmetrics_listen = "file:2"\n[model]\ncheckpoint = "from-file"\n')
    environ = {
        "HOPE_CONFIG": str(file),
        "HOPE_LISTEN": "variable:1",
        "HOPE_METRICS_LISTEN": "variable:2",
        "HOPE_HEALTH_LISTEN": "variable:3",
    }
    config = load_config(None, {"server.listen": "flag:1", "memory.url": None}, environ)
    assert config.server.listen == "flag:1"
    assert config.server.metrics_listen == "variable:2"
    assert config.server.health_listen == "variable:3"
    assert config.model.checkpoint == Path("from-file")


def test_memories_rest_in_the_users_data_folder_unless_told_otherwise():
    assert load_config(environ={"XDG_DATA_HOME": "/data"}).memory.url == "sqlite:///data/hope-serve/memory.db"
    assert load_config(environ={}).memory.url.endswith("/.local/share/hope-serve/memory.db")


@pytest.fixture
def homeless(monkeypatch):
    """An account that the system's list does not have, and that brings no variables."""
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54_321)


def test_without_a_home_folder_a_place_for_memories_is_asked_for(homeless):
    with pytest.raises(ConfigError, match=r"no home, so memories have no default place; name one: --memory"):
        load_config(environ={})
    assert load_config(environ={"HOPE_MEMORY": "sqlite:///a/b"}).memory.url == "sqlite:///a/b"
    assert load_config(environ={"XDG_DATA_HOME": "/data"}).memory.url == "sqlite:///data/hope-serve/memory.db"
    with pytest.raises(ConfigError, match=r"model\.checkpoint is '~/x': ~ stands for no folder"):
        load_config(environ={"HOPE_MEMORY": "sqlite:///a/b", "HOPE_CHECKPOINT": "~/x"})


def test_a_data_folder_with_signs_that_mean_something_in_a_url_is_kept_as_it_is(tmp_path):
    folder = tmp_path / "100% of #1?"
    url = load_config(environ={"XDG_DATA_HOME": str(folder)}).memory.url
    assert unquote(split_url(url).path) == f"{folder}/hope-serve/memory.db"


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path):
    file = tmp_path / "hope.toml"
    file.write_bytes(b"\xef\xbb\xbf[engine]\nmax_slots = 3\n")
    assert load_config(file, environ={"XDG_DATA_HOME": "/data"}).engine.max_slots == 3


def test_any_key_can_be_set_on_the_command_line():
    given = dict(map(parse_setting, ["memory.durability=volatile", "engine.max_slots=3", "memory.url=redis://h?a=b"]))
    config = load_config(overrides=given, environ={})
    assert (config.memory.durability, config.engine.max_slots) == ("volatile", 3)
    assert config.memory.url == "redis://h?a=b"
    with pytest.raises(ConfigError, match=r"memory\.colour"):
        load_config(overrides={"memory.colour": "red"}, environ={})
    for text in ("memory", "memory.url", "url=x", "a.b.c=1"):
        with pytest.raises(ConfigError, match=r"section\.key=value"):
            parse_setting(text)


def test_keys_come_from_the_environment_alone():
    assert memory_key_secret({"HOPE_MEMORY_KEYS": "k1:abc"}) == "k1:abc"
    assert memory_key_secret({}) == ""


def test_clients_find_their_server_in_a_variable():
    assert default_target({"HOPE_TARGET": "far:1"}) == "far:1"
    assert default_target({}) == "127.0.0.1:50051"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nlisen = 'x:1'", ["server.lisen", "listen"]),
        ("colour = 1", ["colour", "engine, identity, memory, model, server, "]),
        ("server = 1", ["server", "[server]"]),
        ("[server]\ndrain_seconds = nan", ["drain_seconds", "nan", "[0, 86400]"]),
        ("[server]\ndrain_seconds = inf", ["drain_seconds", "inf"]),
        ("[server]\nmax_concurrent_calls = 0", ["max_concurrent_calls", "0", "[1, 100000]"]),
        ("[server]\nlisten = 'nowhere'", ["server.listen", "nowhere", "host:port"]),
        ("[server]\nlisten = 'host:99999'", ["99999", "65535"]),
        ("[server]\nlog_level = 'loud'", ["log_level", "loud", "debug"]),
        ("[engine]\nmax_slots = 'many'", ["engine.max_slots", "many", "int"]),
        ("[engine]\nmax_slots = -1", ["max_slots", "-1"]),
        ("[engine]\ndeterministic = 1", ["engine.deterministic", "bool"]),
        ("[model]\ncheckpoint = 3", ["model.checkpoint", "3"]),
        ("[server", ["not TOML"]),
        ("[memory]\nkeep_versions = 0", ["keep_versions", "0", "[1, 1000]"]),
        ("[memory]\nmax_user_bytes = -1", ["max_user_bytes", "-1"]),
        ("[memory]\nmax_idle_seconds = nan", ["max_idle_seconds", "nan"]),
        ("[memory]\ndurability = 'strong'", ["memory.durability", "strong", "replicated_fsync"]),
        ("[tls]\ncertificate = 'c'", ["tls.certificate and private_key"]),
        ("[tls]\nclient_ca = 'c'", ["client_ca", "certificate is not"]),
        ("[identity]\njwks = 'keys.json'", ["jwks", "issuer", "audience"]),
        ("[identity]\njwks = 'http://far/keys'\nissuer = 'i'\naudience = 'a'", ["http://far/keys", "https"]),
        ("[identity]\njwks = 'ftp://far/keys'\nissuer = 'i'\naudience = 'a'", ["ftp://far/keys"]),
        ("[identity]\njwks = 'k'\nissuer = 'i'\naudience = 'a'\nalgorithms = ['HS256']", ["HS256", "ES256"]),
        ("[identity]\njwks = 'k'\nissuer = 'i'\naudience = 'a'\nalgorithms = []", ["algorithms"]),
        ("[identity]\nleeway_seconds = 1e6", ["leeway_seconds", "600"]),
        ("[memory]\nkey_file = 'a'\nkey_service = 'b:c'", ["key_file a", "key_service b:c", "one"]),
    ],
)
def test_a_bad_file_is_refused_with_key_value_and_what_is_allowed(tmp_path, text, said):
    file = tmp_path / "hope.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_config(file, environ={})
    assert str(file) in str(refused.value)
    for word in said:
        assert word in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load_config(tmp_path / "none.toml", environ={})
