"""``hope-serve bench`` against a running server."""

from __future__ import annotations

import json
import re

import pytest
from hope_kernels.spans import SPANS

from hope_serve.api import Delta, SamplingParams
from hope_serve.cli.load import Load, percentiles

SMALL = ("--streams", "1,2", "--adapted", "40", "--rounds", "2", "--prompt-tokens", "4", "--max-tokens", "4")
PERCENTILES = r"\d+\.\d / \d+\.\d / \d+\.\d"


def test_rates_and_percentiles_are_printed(hope, target):
    said = hope("bench", "--target", target, *SMALL)
    assert said.code == 0
    assert "p50 / p90 / p99" in said.out
    rows = re.findall(rf"\D([12])\D+\d+\.\d\D+{PERCENTILES}\D+{PERCENTILES}", said.out)
    assert rows == ["1", "2"]
    assert re.search(rf"40\D+[\d,]+\D+{PERCENTILES}", said.out)


def test_the_same_is_one_json_object_and_the_user_that_was_taught_is_erased(hope, target):
    said = hope("bench", "--target", target, *SMALL, "--json")
    measured = json.loads(said.out)
    assert measured["model"]["name"] == "hope-tiny"
    assert [load["streams"] for load in measured["streams"]] == [1, 2]
    assert [load["tokens"] for load in measured["streams"]] == [4, 8]
    for load in measured["streams"]:
        first, between = load["first_token_ms"], load["between_tokens_ms"]
        assert 0 < first["p50"] <= first["p90"] <= first["p99"]
        assert 0 <= between["p50"] <= between["p90"] <= between["p99"]
    assert measured["returning"][0]["adapted_tokens"] == 40
    assert measured["returning"][0]["memory_bytes"] > 0
    assert "bench-" not in hope("memory", "ls", "--target", target).out


class Messages:
    """A client whose streams send their tokens in messages of these sizes."""

    def __init__(self, *sizes):
        self._sizes = sizes

    async def stream(self, prompt, **fields):
        for size in self._sizes:
            yield Delta(choice=0, text="", token_ids=(7,) * size)


@pytest.mark.parametrize(("sizes", "waited_for"), [((4,), 0), ((3, 1), 1), ((1, 3), 3), ((2, 1, 1), 2), ((1,) * 4, 3)])
async def test_four_tokens_have_three_gaps_however_they_are_sent(sizes, waited_for):
    load = Load(Messages(*sizes), vocab_size=100, prompt_tokens=4, max_tokens=4)
    gaps = (await load._stream(SamplingParams(max_tokens=4))).gaps
    assert len(gaps) == 3
    assert sum(gap > 0 for gap in gaps) == waited_for
    assert (await load.together(1)).between_tokens_ms.keys() == {"p50", "p90", "p99"}


def test_a_profile_says_where_a_step_goes_and_writes_a_trace_without_a_server(hope, checkpoint_folder, tmp_path):
    where = ("--checkpoint", checkpoint_folder, "--device", "cpu")
    said = hope("bench", "--profile", tmp_path / "trace.json", *where, "--streams", "1,3", "--json")
    assert said.code == 0, said.err
    one, three = json.loads(said.out)["steps"]
    assert (one["sequences"], three["sequences"]) == (1, 3)
    for step in (one, three):
        parts = {part["name"]: part for part in step["parts"]}
        assert list(parts) == [*SPANS, "other", "host"]
        assert sum(part["ms"] for part in parts.values()) == pytest.approx(step["ms"], rel=0.01)
        assert all(parts[name]["ms"] > 0 for name in SPANS)
        assert step["floor_ms"] == pytest.approx(sum(part["floor_ms"] for part in parts.values()))
    traces = [json.loads((tmp_path / f"trace-{count}.json").read_text()) for count in (1, 3)]
    assert all({"projections", "read"} <= {event.get("name") for event in trace["traceEvents"]} for trace in traces)
    assert "over the floor" in hope("bench", "--profile", tmp_path / "t.json", *where, "--streams", "2").out


def test_a_profile_that_cannot_be_made_is_wrong_use(hope, checkpoint_folder, tmp_path):
    said = hope("bench", "--profile", tmp_path / "nowhere" / "t.json", "--checkpoint", checkpoint_folder)
    assert said.code == 2 and "make it first" in said.err
    said = hope("bench", "--profile", tmp_path / "t.json", "--checkpoint", checkpoint_folder, "--device", "tpu")
    assert said.code == 2 and "'tpu'" in said.err


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([], {}),
        ([0.25], {"p50": 250.0, "p90": 250.0, "p99": 250.0}),
        ([i / 1000 for i in range(101)], {"p50": 50.0, "p90": 90.0, "p99": 99.0}),
    ],
)
def test_percentiles_are_milliseconds(seconds, expected):
    assert percentiles(seconds) == pytest.approx(expected)
