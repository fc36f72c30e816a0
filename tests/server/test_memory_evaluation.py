"""What a memory knows, by the likelihood of texts with it and without, through a real client."""

from __future__ import annotations

import pytest

from hope_serve.client import Message, ProbeCall
from hope_serve.errors import InvalidRequest, NotFound

LESSON = "My dog is called Biscuit. " * 12


@pytest.fixture
async def ann(client):
    await client.adapt("ann", LESSON, request_id="one")
    await client.adapt("ann", "I like tea without sugar. " * 12, request_id="two")


async def test_an_evaluation_weighs_texts_by_the_plain_model_and_by_each_version(client, ann):
    probes = [
        "My dog is called Biscuit.",
        ProbeCall(prompt="My dog is called", continuation=" Biscuit."),
        ProbeCall(prompt=[Message(role="user", text="My dog?")], continuation=[50, 60]),
    ]
    plain, first, second = await client.evaluate_memory("ann", probes, versions=[1, 2])
    assert [part.version for part in (plain, first, second)] == [0, 1, 2]
    assert first.nll != plain.nll != second.nll
    for part in (plain, first, second):
        assert len(part.scores) == 3
        assert part.num_tokens == sum(len(score.token_logprobs) for score in part.scores)
        assert part.nll == pytest.approx(-sum(score.logprob for score in part.scores) / part.num_tokens)
    scored = await client.score("My dog is called", [" Biscuit."], user_id="ann")
    assert second.scores[1].logprob == pytest.approx(scored[0].logprob, abs=1e-4)
    assert [part.version for part in await client.evaluate_memory("ann", ["tea"])] == [0, 2]


async def test_what_a_memory_learned_is_likelier_with_it_than_without(client):
    for i in range(6):
        await client.adapt("ann", LESSON, request_id=str(i))
    plain, taught = await client.evaluate_memory("ann", [LESSON])
    assert taught.nll < plain.nll


@pytest.mark.parametrize(
    ("probes", "versions", "said"),
    [
        ([], [], r"probes \(count\).*0.*\[1, 256\]"),
        (["x"] * 257, [], r"probes \(count\).*257"),
        ([""], [], r"probes\[0\].continuation.*empty"),
        (["x", ProbeCall(prompt=[], continuation="x")], [], r"probes\[1\]"),
        (["x", ProbeCall(continuation=[10**6])], [], r"probes\[1\].*1000000"),
        (["x"], [0], r"versions\[0\].*0 is outside \[1"),
        (["x"], list(range(1, 10)), r"versions \(count\).*9"),
        (["x"], [1, 1], "twice"),
        (["tea " * 3000], [], r"probes\[0\].continuations.*limit of 2048"),
    ],
    ids=range(9),
)
async def test_bad_probes_are_refused_by_their_place(client, ann, probes, versions, said):
    with pytest.raises(InvalidRequest, match=said):
        await client.evaluate_memory("ann", probes, versions=versions)


async def test_an_evaluation_needs_the_versions_it_names(client, ann):
    with pytest.raises(NotFound):
        await client.evaluate_memory("ann", ["x"], versions=[7])
    with pytest.raises(NotFound):
        await client.evaluate_memory("nobody", ["x"])
