"""Every metric of the service's contract, scraped from a running server that did some of everything."""

from __future__ import annotations

import asyncio
import re
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.server_running import connect

from hope_serve.api import SamplingParams
from hope_serve.errors import HopeError
from hope_serve.metrics import Metrics, definitions

NAMES = """
requests_running requests_waiting requests_adapting queue_tokens requests_total admission_rejected_total
time_to_first_token_seconds inter_token_latency_seconds request_duration_seconds request_queue_seconds
request_restore_seconds request_prefill_seconds request_decode_seconds prompt_tokens_total generation_tokens_total
adapt_tokens_total adapt_total adapt_duration_seconds adapt_nll_delta adapt_surprise memory_drift_ratio
memory_updates_total memory_lookups_total memory_restore_seconds memory_slots memory_slots_used memory_evictions_total
commit_conflicts_total idempotent_replays_total store_op_seconds store_up engine_step_seconds batch_tokens build_info
model_info
""".split()
SHORT = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)


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


async def test_no_label_names_a_person_and_every_value_is_from_its_closed_set(scraped):
    closed = {definition.name: definition.labels for definition in definitions()}
    for family in text_string_to_metric_families(scraped[1]):
        for sample in family.samples:
            name = re.sub(r"_(bucket|count|sum|created)$", "", sample.name)
            labels = closed.get(name) or closed.get(f"{name}_total") or {}
            for label, value in sample.labels.items():
                assert label == "le" or name.endswith("_info") or value in labels[label]
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
