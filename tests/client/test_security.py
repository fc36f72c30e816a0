"""What a client shows, to whom, and what it does when a file changes."""

from __future__ import annotations

import threading

import pytest

from hope_serve.client import ChannelOptions, HopeClient, Tls
from hope_serve.client.security import Credential, check_way
from hope_serve.section import ConfigError


def test_a_credential_in_a_file_is_read_again_when_it_changes(tmp_path):
    file = tmp_path / "key"
    file.write_text("first\nnot this\n")
    credential = Credential("", file)
    assert credential.metadata() == (("authorization", "Bearer first"),)
    file.write_text("second")
    assert credential.metadata() == (("authorization", "Bearer second"),)


def test_no_credential_is_no_header():
    assert Credential("", None).metadata() == ()


def test_options_do_not_print_the_credential():
    assert "secret" not in repr(ChannelOptions(credential="secret"))


@pytest.mark.parametrize("target", ["127.0.0.1:1", "localhost:1", "[::1]:1", "dns:///localhost:1", "unix:/run/hope"])
def test_a_credential_may_go_to_this_machine_in_the_clear(target):
    check_way(target, shows_credential=True, tls=False, insecure=False)


@pytest.mark.parametrize("target", ["far.example:1", "10.0.0.1:1", "dns:///far.example:1", "far.example", "[::2]:1"])
def test_a_credential_goes_nowhere_else_in_the_clear(target):
    with pytest.raises(ConfigError, match="in the clear"):
        check_way(target, shows_credential=True, tls=False, insecure=False)
    for allowed in ({"tls": True}, {"insecure": True}, {"shows_credential": False}):
        check_way(target, **({"shows_credential": True, "tls": False, "insecure": False} | allowed))


def test_options_that_contradict_each_other_are_refused_and_leave_nothing_behind(tmp_path):
    before = threading.active_count()
    file = tmp_path / "key"
    file.write_text("key")
    for options in (
        ChannelOptions(credential="a", credential_file=file),
        ChannelOptions(credential_file=tmp_path / "nowhere"),
        ChannelOptions(tls=Tls(roots=tmp_path / "nowhere")),
    ):
        with pytest.raises(ConfigError):
            HopeClient("127.0.0.1:1", options)
    with pytest.raises(ConfigError, match="belong together"):
        Tls(certificate=file)
    assert threading.active_count() == before
