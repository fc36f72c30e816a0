"""Keys are shown once, kept as digests, and end when they are revoked or expire."""

from __future__ import annotations

import threading
import time

import pytest

from hope_serve.identity import Scope
from hope_serve.identity.api_keys import ApiKeys, NewKey, load_keys, new_key, revoke_key
from hope_serve.section import ConfigError

BOTH = (Scope.GENERATE, Scope.ADAPT)


def test_a_key_opens_what_its_line_says_and_the_file_does_not_hold_it(tmp_path):
    file = tmp_path / "keys.json"
    line, shown = new_key(file, NewKey(tenant="acme", scopes=BOTH, user="ann"))
    caller = ApiKeys(load_keys(file)).caller(shown)
    assert (caller.tenant, caller.scopes, caller.user) == ("acme", frozenset(BOTH), "ann")
    assert shown.rpartition("_")[2] not in file.read_text()
    assert line.id in shown
    assert file.stat().st_mode & 0o777 == 0o600


def test_nothing_but_the_whole_key_opens(tmp_path):
    file = tmp_path / "keys.json"
    line, shown = new_key(file, NewKey(tenant="acme", scopes=BOTH))
    keys = ApiKeys(load_keys(file))
    for guess in ("", shown[:-1], shown + "x", line.digest, line.id, shown.upper(), "hope_\udc80"):
        assert keys.caller(guess) is None


def test_a_revoked_key_is_gone_and_the_others_stay(tmp_path):
    file = tmp_path / "keys.json"
    gone, shown = new_key(file, NewKey(tenant="acme", scopes=BOTH))
    _, other = new_key(file, NewKey(tenant="acme", scopes=BOTH))
    assert revoke_key(file, gone.id) == gone
    keys = ApiKeys(load_keys(file))
    assert keys.caller(shown) is None
    assert keys.caller(other)
    with pytest.raises(ConfigError, match=gone.id):
        revoke_key(file, gone.id)


def test_an_expired_key_opens_nothing(tmp_path):
    file = tmp_path / "keys.json"
    _, shown = new_key(file, NewKey(tenant="acme", scopes=BOTH, expires_at=1000.0))
    assert ApiKeys(load_keys(file), clock=lambda: 999.0).caller(shown)
    assert ApiKeys(load_keys(file), clock=lambda: 1000.0).caller(shown) is None


def test_keys_that_are_made_side_by_side_are_all_kept(tmp_path):
    file = tmp_path / "keys.json"
    threads = [threading.Thread(target=new_key, args=(file, NewKey(tenant="a", scopes=BOTH))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({key.id for key in load_keys(file)}) == 8


def test_who_may_read_the_file_may_read_it_after_a_change(tmp_path):
    file = tmp_path / "keys.json"
    new_key(file, NewKey(tenant="acme", scopes=BOTH))
    file.chmod(0o644)
    new_key(file, NewKey(tenant="acme", scopes=BOTH))
    assert file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no key file"),
        (b"[]", "no key file"),
        (b"\xff\xfe", "no key file"),
        (b'{"format": 2, "keys": []}', "format 2"),
        (b'{"format": 1, "keys": [{"id": "a", "digest": "b", "tenant": "c", "scopes": ["root"]}]}', "root"),
        (b'{"format": 1, "keys": [{"id": "a", "digest": "b", "tenant": "c", "scopes": [], "colour": 1}]}', "colour"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, content, said):
    file = tmp_path / "keys.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as refused:
        load_keys(file)
    assert str(file) in str(refused.value)


def test_a_file_that_others_may_write_to_is_refused(tmp_path):
    file = tmp_path / "keys.json"
    new_key(file, NewKey(tenant="acme", scopes=BOTH))
    file.chmod(0o620)
    with pytest.raises(ConfigError, match="chmod go-w"):
        load_keys(file)


@pytest.mark.parametrize("tenant", ["", "a b", "a\0b", "../x", "a" * 65, "-a", "tenänt"])
def test_a_tenant_that_is_no_name_gets_no_key(tmp_path, tenant):
    with pytest.raises(ValueError, match="tenant"):
        new_key(tmp_path / "keys.json", NewKey(tenant=tenant, scopes=BOTH))
    assert not (tmp_path / "keys.json").exists()


def test_a_key_that_opens_nothing_is_not_made(tmp_path):
    with pytest.raises(ValueError, match="scope"):
        new_key(tmp_path / "keys.json", NewKey(tenant="acme", scopes=()))


def test_looking_at_a_key_takes_microseconds(tmp_path):
    """A bound against a slow hash, which a stranger could make a server work with; a good machine needs about 1 us."""
    file = tmp_path / "keys.json"
    _, shown = new_key(file, NewKey(tenant="acme", scopes=BOTH))
    keys = ApiKeys(load_keys(file))
    began = time.perf_counter()
    for _ in range(1000):
        keys.caller(shown)
    assert (time.perf_counter() - began) / 1000 < 0.001
