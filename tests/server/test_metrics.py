"""Every metric of the service's contract, scraped from a running server that did some of everything."""

from __future__ import annotations

import asyncio
import re
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.counting import until_counted
from support.server_running import connect
from support.waiting import until

from hope_serve.api import AdaptOptions, SamplingParams
from hope_serve.errors import HopeError
from hope_serve.metrics import MAX_TENANTS, METHODS, TENANT_OUTCOMES, TOKEN_USES, Metrics, definitions

NAMES = """
requests_running requests_waiting requests_adapting queue_tokens requests_total admission_rejected_total
time_to_first_token_seconds inter_token_latency_seconds request_duration_seconds request_queue_seconds
request_restore_seconds request_prefill_seconds request_decode_seconds prompt_tokens_total generation_tokens_total
adapt_tokens_total adapt_total adapt_duration_seconds adapt_nll_delta adapt_surprise memory_drift_ratio
memory_updates_total memory_lookups_total memory_restore_seconds memory_slots memory_slots_used memory_evictions_total
commit_conflicts_total version_regressions_total idempotent_replays_total store_op_seconds store_up store_promise_kept
engine_step_seconds batch_tokens build_info model_info saturation tenant_requests_total tenant_calls_running
tenant_tokens_total
""".split()
SHORT = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)
ENDLESS = SamplingParams(max_tokens=2**20, ignore_eos=True, n=3)
LOAD = (
    "hope_requests_running",
    "hope_requests_waiting",
    "hope_requests_adapting",
    "hope_queue_tokens",
    "hope_memory_slots_used",
)


@pytest.fixture
async def scraped(open_server):
    async with open_server(max_concurrent_calls=3) as server, connect(server) as client:
        await client.adapt("ann", "My dog is called Biscuit. " * 8, request_id="one")
        await client.adapt("ann", "My dog is called Biscuit. " * 8, request_id="one")
        version = await client.rollback_memory("ann", 1)
        await client.generate("My dog", user_id="ann", sampling=SHORT)
        _ = [event async for event in client.stream("My dog", sampling=SHORT)]
        for call in (client.get_memory("nobody"), client.generate("x", sampling=SHORT, user_id="a\x00b")):
            with pytest.raises(HopeError):
                await call
        assert version == 2
        await until_counted(server, "GetMemory", "NOT_FOUND")
        await until_counted(server, "Generate", "INVALID_ARGUMENT")
        text = await asyncio.to_thread(_scrape, server.metrics_port)
    return {sample.name: sample for family in text_string_to_metric_families(text) for sample in family.samples}, text


async def test_every_name_of_the_contract_is_there(scraped):
    found = set(re.findall(r"^# TYPE (\S+)", scraped[1], re.MULTILINE))
    assert {f"hope_{name}" for name in NAMES} <= found
    assert {definition.name for definition in definitions()} <= {f"hope_{name}" for name in NAMES}


async def test_what_was_done_was_counted(scraped):
    samples = _by_labels(scraped[1])
    assert samples["hope_requests_total"][("Adapt", "OK", "none")] == 2
    assert samples["hope_requests_total"][("Generate", "OK", "length")] == 1
    assert samples["hope_requests_total"][("GenerateStream", "OK", "length")] == 1
    assert samples["hope_requests_total"][("GetMemory", "NOT_FOUND", "none")] == 1
    assert samples["hope_requests_total"][("Generate", "INVALID_ARGUMENT", "none")] == 1
    assert samples["hope_adapt_total"][("committed",)] == 1
    assert samples["hope_adapt_total"][("duplicate",)] == 1
    assert samples["hope_idempotent_replays_total"][()] == 1
    assert samples["hope_generation_tokens_total"][()] == 8
    assert samples["hope_time_to_first_token_seconds_count"][("store",)] == 1
    assert samples["hope_time_to_first_token_seconds_count"][("none",)] == 1
    assert samples["hope_inter_token_latency_seconds_count"][()] == 6
    assert samples["hope_store_op_seconds_count"][("commit", "ok")] == 1
    assert samples["hope_store_up"][()] == 1
    assert samples["hope_memory_slots"][()] == 8
    assert samples["hope_memory_updates_total"][("0",)] > 0


def _is_full(load: dict[str, float]) -> bool:
    """Three slots are taken, one of them by a lesson that learns already, and another call waits."""
    counts = ("memory_slots_used", "requests_running", "requests_adapting", "requests_waiting")
    return [load[f"hope_{count}"] for count in counts] == [3, 3, 1, 1] and load["hope_queue_tokens"] > 0


@pytest.mark.parametrize("way", ["cancel", "deadline", "disconnect"])
async def test_gauges_are_true_within_a_second_however_calls_ended_on_a_server_that_is_idle_afterwards(
    open_server, way
):
    async with open_server(max_slots=3) as server:
        client = connect(server)
        seconds = 1.5 if way == "deadline" else 60.0
        calls = [_read(client.stream("tea", sampling=ENDLESS, timeout_seconds=seconds)) for _ in range(2)]
        calls.append(client.adapt("ann", [20] * 2000, options=AdaptOptions(passes=8), request_id="long"))
        running = [asyncio.ensure_future(call) for call in calls]
        await _until(server, _is_full)
        if way == "disconnect":
            await client.close()
        elif way == "deadline":
            await asyncio.wait(running[:2])
        for call in running:
            call.cancel()
        await asyncio.wait(running)
        async with asyncio.timeout(2):  # a second on a machine that has nothing else to do
            await _until(server, lambda load: not any(load.values()))
        await client.close()
        await asyncio.gather(*running, return_exceptions=True)


async def test_tokens_of_an_answer_that_was_cut_off_are_counted(open_server):
    async with open_server() as server, connect(server) as client:
        stream = client.stream([20] * 50, sampling=ENDLESS)
        seen = 0
        while seen < 30:
            event = await anext(stream)
            seen += len(getattr(event, "token_ids", ()))
        await stream.aclose()
        await _until(server, lambda load: not any(load.values()))
        counted = _by_labels(await asyncio.to_thread(_scrape, server.metrics_port))
    assert counted["hope_prompt_tokens_total"][()] == 50
    assert counted["hope_generation_tokens_total"][()] >= seen


async def test_a_server_that_has_served_everything_shows_fewer_than_a_thousand_series(open_server):
    async with open_server() as server, connect(server) as client:
        await _everything(client)
        text = await asyncio.to_thread(_scrape, server.metrics_port)
    methods = {labels[0] for labels in _by_labels(text)["hope_requests_total"]}
    assert methods == set(METHODS)
    series = [line for line in text.splitlines() if line and not line.startswith("#")]
    of_tenants = MAX_TENANTS * (len(TENANT_OUTCOMES) + len(TOKEN_USES) + 1)
    assert len(series) + of_tenants < 900  # room for errors that this server did not meet
    assert not any("_created" in line for line in series)


async def _everything(client) -> None:
    """Every method, answered and refused."""
    await client.adapt("ann", "My dog is called Biscuit. " * 8, request_id="one")
    await client.adapt("ann", "My dog is called Biscuit. " * 8, request_id="one")
    await client.adapt_stream("ann", ["I like tea.", "I live in Bergen."])
    await client.generate("My dog", user_id="ann", session_id="s", sampling=SHORT)
    _ = [event async for event in client.stream("My dog", user_id="ann", sampling=SHORT)]
    await client.score("My dog", [" is", " was"], user_id="ann")
    await client.detokenize(await client.tokenize("tea"))
    await client.get_model()
    await client.get_memory("ann")
    _ = [memory async for memory in client.list_memories()]
    await client.list_versions("ann")
    await client.rollback_memory("ann", 1)
    await client.fork_memory("ann", "bob")
    await client.evaluate_memory("ann", ["tea"])
    file = [piece async for piece in client.export_memory("ann")]
    await client.import_memory("cid", file)
    await client.warm_memory("cid")
    await client.delete_session("ann", "s")
    await client.delete_memory("ann")
    for call in (
        client.generate("x", sampling=SHORT, user_id="a\x00b"),
        client.generate("x", sampling=SHORT, timeout_seconds=1e-4),
        client.get_memory("nobody"),
        client.rollback_memory("bob", 9),
        client.fork_memory("ann", "bob"),
        client.delete_memory("nobody"),
        client.evaluate_memory("nobody", ["x"]),
        client.adapt("bob", "x y z", request_id="two", expected_version=9),
        client.adapt_stream("bob", ["x y z"], expected_version=9),
        client.import_memory("dan", [b"no memory"]),
        client.list_versions("nobody"),
        client.warm_memory("bob", min_version=9),
    ):
        with pytest.raises(HopeError):
            await call


async def _read(stream) -> None:
    async for _ in stream:
        pass


async def _load(server) -> dict[str, float]:
    values = _by_labels(await asyncio.to_thread(_scrape, server.metrics_port))
    return {name: values[name][()] for name in LOAD}


async def _until(server, true) -> None:
    async def looked():
        return true(await _load(server))

    await until(looked, 10)


async def test_no_label_names_a_person_and_every_value_is_from_its_closed_set(scraped):
    closed = {definition.name: definition.labels for definition in definitions()}
    for family in text_string_to_metric_families(scraped[1]):
        for sample in family.samples:
            name = re.sub(r"_(bucket|count|sum|created)$", "", sample.name)
            labels = closed.get(name) or closed.get(f"{name}_total") or {}
            for label, value in sample.labels.items():
                allowed = labels.get(label) or ("default",)  # the one tenant of a server that asks nobody who they are
                assert label == "le" or name.endswith("_info") or value in allowed
    assert "ann" not in re.findall(r'="([^"]*)"', scraped[1])


def test_a_label_outside_its_closed_set_is_a_bug():
    with pytest.raises(ValueError, match="outcome"):
        Metrics().adapt_total(outcome="of user ann")
    with pytest.raises(ValueError, match="has"):
        Metrics().adapt_total()


def test_two_servers_in_one_process_count_apart():
    first, second = Metrics(), Metrics()
    first.prompt_tokens_total().inc(3)
    assert second.registry.get_sample_value("hope_prompt_tokens_total") == 0


def _scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        return reply.read().decode()


def _by_labels(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name and by label values, in the order in which the metric names its labels."""
    order = {definition.name: tuple(definition.labels) for definition in definitions()}
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            base = re.sub(r"_(bucket|count|sum)$", "", sample.name)
            key = tuple(sample.labels.get(label, "") for label in order.get(base, ()))
            found.setdefault(sample.name, {})[key] = sample.value
    return found
