"""A name is listened on as a whole or not at all, and idle clients may ask as often as they like."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing

import grpc
import pytest

from hope_serve.client.channel import ChannelOptions
from hope_serve.config import ConfigError
from hope_serve.server.listening import free_endpoints

BOTH = ("127.0.0.1", "::1")


def has_ipv6():
    with closing(socket.socket(socket.AF_INET6)) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="needs ::1")


@pytest.fixture
def two_addresses(monkeypatch):
    """The name ``both`` stands for 127.0.0.1 and ::1, as localhost does in most places."""
    real = socket.getaddrinfo

    def resolve(host, *arguments, **options):
        names = BOTH if host == "both" else (host,)
        return [line for name in names for line in real(name, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def held(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return closing(socket.create_server((host, 0), family=family))


@needs_ipv6
@pytest.mark.parametrize("taken", BOTH)
async def test_a_name_of_which_one_address_is_taken_is_refused_by_that_address(two_addresses, taken):
    with held(taken) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"server.listen both:{port} cannot be bound \({taken}: Address already"):
            await free_endpoints(f"both:{port}", "server.listen")


@needs_ipv6
async def test_a_name_is_all_its_addresses_on_one_port(two_addresses):
    endpoints = await free_endpoints("both:0", "server.listen")
    assert [endpoint.host for endpoint in endpoints] == list(BOTH)
    assert len({endpoint.port for endpoint in endpoints}) == 1
    assert str(endpoints[1]) == f"[::1]:{endpoints[0].port}"


@needs_ipv6
async def test_a_server_answers_at_every_address_of_its_name(two_addresses, open_server):
    async with open_server(listen="both:0", insecure=True) as server:
        for host in BOTH:
            await _answers(host, server.port)
            await _answers(host, server.port)


async def _answers(host, port):
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("key", ["listen", "metrics_listen"])
@pytest.mark.parametrize("ours", ["localhost", "127.0.0.1", "0.0.0.0", "[::]"])
async def test_a_port_that_another_holds_on_ipv4_is_not_had_on_ipv6_instead(open_server, ours, key):
    with held("127.0.0.1") as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"server.{key} .*:{port} cannot be bound .*Address already in use"):
            async with open_server(insecure=True, **{key: f"{ours}:{port}"}):
                pass


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("192.0.2.1:50051", "no address of this machine"),
        ("no.such.host.invalid:1", "Name or service not known|Temporary failure"),
        ("x" * 70 + ".example:1", "label"),
    ],
)
async def test_an_address_that_is_not_ours_is_refused_by_name(listen, why):
    with pytest.raises(ConfigError, match=f"server.listen {listen} cannot be bound .*({why})"):
        await free_endpoints(listen, "server.listen")


PING_SECONDS = 1.0  # gRPC sends no faster
FIVE_PINGS = 5.5 * PING_SECONDS  # its own answer to the third would be GOAWAY, too_many_pings


async def test_clients_that_ask_often_whether_we_are_there_are_not_hung_up_on(server):
    """One idles, and one is our own with a call under way that brings no data."""
    await asyncio.gather(_idles(server.port), _waits(server.port))


async def _idles(port):
    options = [
        ("grpc.keepalive_time_ms", round(PING_SECONDS * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        await channel.channel_ready()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(FIVE_PINGS):
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)


async def _waits(port):
    async with ChannelOptions(keepalive_seconds=PING_SECONDS).open(f"127.0.0.1:{port}") as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        assert await watch.read()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(FIVE_PINGS):
                await watch.read()
        watch.cancel()
