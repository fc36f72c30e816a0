"""Who uses what: calls and tokens by tenant, for so many tenants as a dashboard can show."""

from __future__ import annotations

import asyncio
import urllib.request

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support.counting import until_counted
from support.redis_server import until
from support.server_running import connect

from hope_serve.api import SamplingParams
from hope_serve.client import Learn, Message
from hope_serve.errors import Exhausted, HopeError, NotFound
from hope_serve.identity import Scope
from hope_serve.identity.api_keys import NewKey, new_key
from hope_serve.metrics import MAX_TENANTS, OTHER_TENANTS, Metrics

FOUR = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)
TWICE = SamplingParams(temperature=1.0, max_tokens=4, ignore_eos=True, n=2)
SCOPES = (Scope.GENERATE, Scope.ADAPT, Scope.MEMORY_READ)


@pytest.fixture
async def clients(open_server, tmp_path):
    """A server, and the clients of two tenants; the second has little room."""
    file = tmp_path / "keys.json"
    _, acme = new_key(file, NewKey(tenant="acme", scopes=SCOPES))
    _, tiny = new_key(file, NewKey(tenant="tiny", scopes=SCOPES))
    limits = {"learn_tokens_per_second": 2.0}
    async with (
        open_server(identity={"key_file": str(file)}, tenant_limits=limits, burst_seconds=10.0) as server,
        connect(server, credential=acme) as one,
        connect(server, credential=tiny) as other,
        connect(server, credential="no key of ours") as stranger,
    ):
        yield server, one, other, stranger


async def test_calls_and_tokens_are_counted_for_the_tenant_that_makes_them(clients):
    server, acme, tiny, stranger = clients
    await acme.adapt("ann", [20] * 17)
    await acme.generate([20] * 5, user_id="ann", sampling=TWICE)
    await acme.generate([20] * 3, sampling=FOUR)
    _ = [event async for event in acme.stream([20] * 7, sampling=TWICE)]
    with pytest.raises(NotFound):
        await acme.get_memory("nobody")
    await tiny.adapt("ann", [20] * 60)
    with pytest.raises(Exhausted):
        await tiny.adapt("ann", [20] * 60)
    with pytest.raises(HopeError):
        await stranger.generate([20], sampling=FOUR)
    await until_counted(server, "GetMemory", "NOT_FOUND")
    await until_counted(server, "Adapt", "RESOURCE_EXHAUSTED")
    counted = await asyncio.to_thread(_scraped, server)
    assert _of(counted, "hope_tenant_requests_total", "acme") == {"ok": 4, "refused": 1}
    assert _of(counted, "hope_tenant_requests_total", "tiny") == {"ok": 1, "over_limits": 1}
    assert _of(counted, "hope_tenant_tokens_total", "acme") == {"read": 15, "written": 20, "learned": 16}
    assert _of(counted, "hope_tenant_tokens_total", "tiny") == {"learned": 59}
    assert {tenant for _, tenant, _ in counted} == {"acme", "tiny"}
    assert {value for (name, *_), value in counted.items() if name == "hope_tenant_calls_running"} == {0}


async def test_what_is_learned_from_talking_counts_too(clients):
    server, acme, _, _ = clients
    await acme.generate([Message(role="user", text="tea")], user_id="bob", sampling=FOUR, learn=Learn.USER_TURNS)
    await until(lambda: "learned" in _of(_scraped(server), "hope_tenant_tokens_total", "acme"))


def test_tenants_beyond_those_that_have_names_are_one():
    metrics = Metrics()
    for number in range(MAX_TENANTS + 3):
        metrics.tenant_requests_total(tenant=f"t{number}", outcome="ok").inc()
        metrics.tenant_calls_running(tenant=f"t{number}").inc()
    counted = _counted(generate_latest(metrics.registry).decode())
    assert counted["hope_tenant_requests_total", "t0", "ok"] == 1
    assert counted["hope_tenant_requests_total", OTHER_TENANTS, "ok"] == 3
    assert counted["hope_tenant_calls_running", OTHER_TENANTS, ""] == 3
    assert len(counted) == 2 * (MAX_TENANTS + 1)


def _of(counted, name, tenant):
    return {what: value for (metric, whose, what), value in counted.items() if (metric, whose) == (name, tenant)}


def _scraped(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics") as reply:
        return _counted(reply.read().decode())


def _counted(text):
    """Metric, tenant, and the other label's value, to the number."""
    return {
        (
            sample.name,
            sample.labels["tenant"],
            sample.labels.get("outcome") or sample.labels.get("use", ""),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "tenant" in sample.labels
    }
