"""``hope-serve key``, and commands that show one to a server in TLS."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from support.certificates import Authority

from hope_serve.cli.server_process import ServerProcess
from hope_serve.identity.api_keys import ApiKeys, load_keys

FAILED, WRONG = 1, 2


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.json"


def test_a_key_is_printed_once_and_opens_what_was_asked_for(hope, file):
    made = hope(
        "key", "new", file, "--tenant", "acme", "--scope", "generate", "--scope", "memory:read", "--user", "ann"
    )
    caller = ApiKeys(load_keys(file)).caller(made.out.strip())
    assert (made.code, caller.tenant, caller.user) == (0, "acme", "ann")
    assert {scope.value for scope in caller.scopes} == {"generate", "memory:read"}
    listed = hope("key", "list", file)
    assert made.out.strip() not in listed.out
    for word in (caller.name, "acme", "ann", "generate memory:read", "never"):
        assert word in listed.out


def test_a_key_may_have_an_end(hope, file):
    hope("key", "new", file, "--tenant", "acme", "--scope", "generate", "--days", "2", "--note", "for the demo")
    (line,) = load_keys(file)
    assert 1.9 * 86_400 < line.expires_at - time.time() < 2.1 * 86_400
    assert "for the demo" in hope("key", "list", file).out


def test_a_key_may_have_limits(hope, file):
    hope(
        "key", "new", file, "--tenant", "acme", "--scope", "generate", "--limit", "slots=4", "--limit", "max_tokens=64"
    )
    (line,) = load_keys(file)
    assert (line.limits.slots, line.limits.max_tokens, line.limits.max_priority) == (4, 64, 100)
    assert "slots=4 max_tokens=64" in hope("key", "list", file).out


def test_a_revoked_key_is_gone(hope, file):
    shown = hope("key", "new", file, "--tenant", "acme", "--scope", "generate").out.strip()
    (line,) = load_keys(file)
    assert hope("key", "revoke", file, line.id).code == 0
    assert ApiKeys(load_keys(file)).caller(shown) is None
    again = hope("key", "revoke", file, line.id)
    assert (again.code, line.id in again.err) == (WRONG, True)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--tenant", "a b", "--scope", "generate"), "a b"),
        (("--tenant", "acme", "--scope", "root"), "root"),
        (("--tenant", "acme"), "--scope"),
        (("--tenant", "acme", "--scope", "generate", "--limit", "colour=1"), "slots"),
        (("--tenant", "acme", "--scope", "generate", "--limit", "slots=-1"), "slots"),
        (("--tenant", "acme", "--scope", "generate", "--limit", "slots"), "slots"),
        (("--tenant", "acme", "--scope", "generate", "--user", "a\nb"), "user"),
    ],
)
def test_wrong_words_make_no_key(hope, file, arguments, word):
    said = hope("key", "new", file, *arguments)
    assert (said.code, word in said.err) == (WRONG, True)
    assert not file.exists()


def test_commands_show_their_key_and_certificate_and_trust_the_named_authority(hope, file, checkpoint_folder, tmp_path):
    authority = Authority(tmp_path)
    pair, ours, key = authority.sign("server"), authority.sign("client"), tmp_path / "key"
    key.write_text(hope("key", "new", file, "--tenant", "acme", "--scope", "adapt", "--scope", "admin").out)
    settings = f"""
[tls]
certificate = "{pair.certificate}"
private_key = "{pair.private_key}"
client_ca = "{authority.roots}"
[identity]
key_file = "{file}"
"""
    (tmp_path / "hope.toml").write_text(settings)
    options = {"config": str(tmp_path / "hope.toml"), "memory": f"sqlite://{tmp_path}/memory.db", "device": "cpu"}
    with ServerProcess(checkpoint=str(checkpoint_folder), log=tmp_path / "log", **options) as server:
        assert server.metrics_url.startswith("https://")
        text = tmp_path / "text.txt"
        text.write_text("My dog is called Biscuit.")
        mine = ("--tls-certificate", ours.certificate, "--tls-key", ours.private_key, "--tls-roots", authority.roots)
        at = ("--target", server.target, *mine)
        assert hope("adapt", text, "--user", "ann", *at, "--credentials", key).code == 0
        assert "ann" in hope("memory", "ls", *at, "--credentials", key).out
        denied = hope("memory", "show", "ann", *at, "--credentials", key)
        assert (denied.code, "memory:read" in denied.err) == (FAILED, True)
        unknown = hope("memory", "ls", *at)
        assert (unknown.code, "CREDENTIAL_MISSING" in unknown.err) == (FAILED, True)


def test_variables_stand_in_for_the_options(hope, file, checkpoint_folder, tmp_path, monkeypatch):
    key = tmp_path / "key"
    key.write_text(hope("key", "new", file, "--tenant", "acme", "--scope", "admin").out)
    (tmp_path / "hope.toml").write_text(f'[identity]\nkey_file = "{file}"\n')
    options = {"config": str(tmp_path / "hope.toml"), "memory": f"sqlite://{tmp_path}/memory.db", "device": "cpu"}
    with ServerProcess(checkpoint=str(checkpoint_folder), log=tmp_path / "log", **options) as server:
        monkeypatch.setenv("HOPE_CREDENTIALS", str(key))
        monkeypatch.setenv("HOPE_TARGET", server.target)
        assert hope("memory", "ls").code == 0


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--target", "far.example:1", "--credentials", "{key}"), "in the clear"),
        (("--credentials", "/nowhere"), "/nowhere"),
        (("--tls-certificate", "{key}"), "belong together"),
        (("--tls-roots", "/nowhere.pem"), "/nowhere.pem"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_anything_is_sent(hope, tmp_path, options, word):
    key = tmp_path / "key"
    key.write_text("hope_0_secret\n")
    said = hope("memory", "ls", *(option.format(key=key) for option in options))
    assert (said.code, word in said.err) == (WRONG, True)
    assert "secret" not in said.err


def test_the_command_line_starts_without_what_verifies_tokens():
    code = "import sys, hope_serve.cli.app, hope_serve.client; print([m for m in ('jwt', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
