"""TLS on both ports: who is trusted, who is let in, and certificates that change while the server runs."""

from __future__ import annotations

import asyncio
import socket
import ssl
import urllib.error
import urllib.request

import pytest
from support.certificates import Authority
from support.server_running import connect

from hope_serve.client import ChannelOptions, HopeClient, Tls
from hope_serve.config import ConfigError
from hope_serve.errors import Unavailable
from hope_serve.identity.api_keys import NewKey, new_key
from hope_serve.identity.caller import Scope


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def table(pair, **more):
    return {"certificate": str(pair.certificate), "private_key": str(pair.private_key)} | {
        name: str(value) for name, value in more.items()
    }


async def test_a_client_that_trusts_the_authority_is_served_in_tls_and_nobody_in_the_clear(open_server, authority):
    async with open_server(tls=table(authority.sign("server"))) as server:
        async with connect(server, tls=Tls(roots=authority.roots)) as client:
            assert (await client.get_model()).name
            assert await client.is_serving()
        async with connect(server, timeout_seconds=2) as client:
            with pytest.raises(Unavailable):
                await client.get_model()


async def test_a_client_of_another_authority_does_not_talk_to_us(open_server, authority, tmp_path):
    stranger = Authority(tmp_path, "stranger")
    async with open_server(tls=table(authority.sign("server"))) as server:
        async with connect(server, tls=Tls(roots=stranger.roots), timeout_seconds=5) as client:
            with pytest.raises(Unavailable):
                await client.get_model()


async def test_mutual_tls_lets_in_who_shows_a_certificate_of_the_authority(open_server, authority, tmp_path):
    ours, theirs = authority.sign("client"), Authority(tmp_path, "stranger").sign("client", "strange")
    async with open_server(tls=table(authority.sign("server"), client_ca=authority.roots)) as server:

        def showing(pair):
            shown = {"certificate": pair.certificate, "private_key": pair.private_key} if pair else {}
            return connect(server, tls=Tls(roots=authority.roots, **shown), timeout_seconds=5)

        async with showing(ours) as client:
            assert (await client.get_model()).name
        for pair in (theirs, None):
            async with showing(pair) as client:
                with pytest.raises(Unavailable):
                    await client.get_model()


async def test_a_new_certificate_is_shown_without_a_restart_and_a_broken_one_never(open_server, authority):
    pair = authority.sign("first", "server")
    async with open_server(tls=table(pair)) as server:
        ports = (server.port, server.metrics_port)
        assert [await _shown(port, authority) for port in ports] == ["first", "first"]
        authority.sign("second", "server")
        assert [await _shown(port, authority) for port in ports] == ["second", "second"]
        pair.private_key.write_bytes(b"no key")
        assert [await _shown(port, authority) for port in ports] == ["second", "second"]
        authority.sign("third", "server")
        assert [await _shown(port, authority) for port in ports] == ["third", "third"]


async def test_metrics_are_read_in_tls_and_not_in_the_clear(open_server, authority):
    async with open_server(tls=table(authority.sign("server"))) as server:
        assert "hope_requests_running" in await asyncio.to_thread(_scraped, server, authority)
        with pytest.raises((urllib.error.URLError, OSError)):
            await asyncio.to_thread(_scraped, server, None)


async def test_metrics_under_mutual_tls_need_a_certificate(open_server, authority):
    ours = authority.sign("client")
    async with open_server(tls=table(authority.sign("server"), client_ca=authority.roots)) as server:
        assert "hope_requests_running" in await asyncio.to_thread(_scraped, server, authority, ours)
        with pytest.raises((urllib.error.URLError, OSError)):
            await asyncio.to_thread(_scraped, server, authority)


async def test_metrics_may_stay_in_the_clear(open_server, authority):
    async with open_server(tls=table(authority.sign("server")) | {"metrics": False}) as server:
        assert "hope_requests_running" in await asyncio.to_thread(_scraped, server, None)


async def test_who_connects_to_the_metrics_and_says_nothing_holds_up_nobody(open_server, authority):
    async with open_server(tls=table(authority.sign("server"))) as server:
        with socket.create_connection(("127.0.0.1", server.metrics_port)):
            async with asyncio.timeout(4):
                assert await asyncio.to_thread(_scraped, server, authority)


@pytest.mark.parametrize("missing", ["certificate", "private_key"])
async def test_files_that_cannot_be_used_stop_the_start(open_server, authority, missing):
    files = table(authority.sign("server"))
    with pytest.raises(ConfigError, match="nowhere"):
        async with open_server(tls=files | {missing: "/nowhere.pem"}):
            pass
    other = authority.sign("other")
    with pytest.raises(ConfigError, match="cannot be used together"):
        async with open_server(tls=files | {"private_key": str(other.private_key)}):
            pass


async def test_a_key_travels_in_tls(open_server, authority, tmp_path):
    file = tmp_path / "keys.json"
    _, shown = new_key(file, NewKey(tenant="acme", scopes=(Scope.GENERATE,)))
    async with open_server(tls=table(authority.sign("server")), identity={"key_file": str(file)}) as server:
        async with connect(server, tls=Tls(roots=authority.roots), credential=shown) as client:
            assert (await client.get_model()).name


async def _shown(port, authority) -> str:
    """The name in the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=str(authority.roots))
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="127.0.0.1")
    subject = writer.get_extra_info("peercert")["subject"]
    writer.close()
    return dict(part[0] for part in subject)["commonName"]


def _scraped(server, authority, shown=None) -> str:
    context = None
    if authority:
        context = ssl.create_default_context(cafile=str(authority.roots))
        if shown:
            context.load_cert_chain(shown.certificate, shown.private_key)
    scheme = "https" if authority else "http"
    url = f"{scheme}://127.0.0.1:{server.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=3, context=context) as reply:
        return reply.read().decode()


async def test_the_blocking_client_talks_tls_and_shows_its_key(open_server, authority, tmp_path):
    file = tmp_path / "keys.json"
    (tmp_path / "key").write_text(new_key(file, NewKey(tenant="acme", scopes=(Scope.GENERATE,)))[1])
    async with open_server(tls=table(authority.sign("server")), identity={"key_file": str(file)}) as server:

        def ask():
            options = ChannelOptions(tls=Tls(roots=authority.roots), credential_file=tmp_path / "key")
            with HopeClient(f"127.0.0.1:{server.port}", options) as client:
                return client.get_model().name

        assert await asyncio.to_thread(ask)


async def test_a_name_that_is_not_the_targets_can_be_expected(open_server, authority):
    async with open_server(tls=table(authority.sign("server"))) as server:
        async with connect(server, tls=Tls(roots=authority.roots, server_name="localhost")) as client:
            assert (await client.get_model()).name
        wrong = Tls(roots=authority.roots, server_name="another.example")
        async with connect(server, tls=wrong, timeout_seconds=5) as client:
            with pytest.raises(Unavailable):
                await client.get_model()
