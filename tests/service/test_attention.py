"""A converted model in the running engine: it is its source, and beside that it learns."""

from __future__ import annotations

import asyncio
from itertools import combinations

import pytest
import torch
from support.attention_checkpoint import converted, write_part
from support.engine_calls import ANN, BOB, adapt, generate, generate_all
from support.other_makers import LLAMA3
from support.running_service import running_service

from hope_serve.api import MemoryChoice, ScoreRequest
from hope_serve.errors import FailedPrecondition, InvalidRequest
from hope_serve.memory.url import make_store
from hope_serve.model.load import load_model

CLOSE = 1e-4  # of log-probabilities, fp32
KINDS = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, stretched rotations": ("llama", {"rope_parameters": LLAMA3}),
    "qwen2": ("qwen2", {}),
}


def text(seed, count):
    return torch.randint(3, 290, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return converted(tmp_path_factory.mktemp("llama"))[0]


@pytest.fixture(scope="module")
def checkpoint(folder):
    return load_model(folder, write_part(folder.parent / "part.safetensors", folder))


@pytest.fixture
async def serving(tmp_path):
    """``await serving(checkpoint, **options)``: a service on one store."""
    store = make_store(f"sqlite://{tmp_path}/memory.db")
    await store.open()
    open_services = []

    async def opened(checkpoint, **options):
        service = running_service(checkpoint, store, **({"max_slots": 6} | options))
        open_services.append(service)
        return await service.__aenter__()

    yield opened
    for service in reversed(open_services):
        await service.__aexit__(None, None, None)
    await store.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
async def test_scores_of_a_converted_model_are_those_of_transformers(serving, tmp_path, kind):
    name, changes = KINDS[kind]
    served, source = converted(tmp_path, name, **changes)
    service = await serving(load_model(served))
    tokens = text(1, 90)
    results = await service.score(
        ScoreRequest(prompt=tuple(tokens[:40]), continuations=(tuple(tokens[40:]), tuple(text(2, 9))))
    )
    for result, ids in zip(results, (tokens, [*tokens[:40], *text(2, 9)]), strict=True):
        with torch.no_grad():
            wanted = torch.log_softmax(source(torch.tensor([ids])).logits[0], -1)
        for i, found in enumerate(result.token_logprobs):
            assert found == pytest.approx(float(wanted[39 + i, ids[40 + i]]), abs=CLOSE)


@pytest.mark.timeout(600)
async def test_what_it_draws_is_what_transformers_draws(serving, tmp_path):
    served, source = converted(tmp_path)
    service = await serving(load_model(served))
    said = await generate(service, text(1, 20), max_tokens=30)
    with torch.no_grad():
        wanted = source.generate(
            torch.tensor([text(1, 20)]), max_new_tokens=30, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    assert said.tokens == wanted[0, 20:].tolist()


async def test_a_prompt_may_be_cut_anywhere(serving, checkpoint):
    whole = await generate(await serving(checkpoint), text(1, 70), max_tokens=20, logprobs=2)
    parts = await generate(await serving(checkpoint, max_batch_tokens=7), text(1, 70), max_tokens=20, logprobs=2)
    assert parts.tokens == whole.tokens
    for ours, theirs in zip(parts.logprobs, whole.logprobs, strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=CLOSE)


async def test_deterministic_mode_gives_the_same_bits_in_company(serving, checkpoint):
    service = await serving(checkpoint, deterministic=True, max_batch_tokens=32)
    await adapt(service, text(9, 40))
    ask = lambda: generate(service, text(1, 70), owner=ANN, max_tokens=20, logprobs=3)
    alone = await ask()
    crowd = [generate(service, text(i, 3 + 9 * i), max_tokens=12) for i in range(2, 7)]
    together = (await asyncio.gather(ask(), *crowd))[0]
    assert together.logprobs == alone.logprobs
    other = await serving(checkpoint, deterministic=True, max_batch_tokens=2048)
    again = await generate(other, text(1, 70), owner=ANN, max_tokens=20, logprobs=3)
    assert again.logprobs == alone.logprobs


async def test_users_in_one_batch_read_their_own_memories(serving, checkpoint):
    service = await serving(checkpoint)
    await adapt(service, text(8, 45), owner=ANN)
    await adapt(service, text(9, 45), owner=BOB)
    asks = [
        lambda who=who: generate(service, text(1, 9), owner=who, max_tokens=25, logprobs=1) for who in (ANN, BOB, None)
    ]
    alone = [await ask() for ask in asks]
    for ours, theirs in zip(await asyncio.gather(*(ask() for ask in asks)), alone, strict=True):
        assert ours.tokens == theirs.tokens
        for one, other in zip(ours.logprobs, theirs.logprobs, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=CLOSE)
    first = [reply.logprobs[0].top[0][1] for reply in alone]
    assert min(abs(a - b) for a, b in combinations(first, 2)) > 100 * CLOSE


async def test_choices_share_a_prompt_and_draw_their_own(serving, checkpoint):
    service = await serving(checkpoint)
    options = {"max_tokens": 12, "temperature": 1.5, "seed": 4}
    several = await generate_all(service, text(1, 21), n=4, **options)
    assert several[0].tokens == (await generate(service, text(1, 21), **options)).tokens
    assert len({tuple(one.tokens) for one in several}) == 4


async def test_a_lesson_is_learned_and_is_there_after_a_restart(serving, checkpoint):
    service = await serving(checkpoint, deterministic=True)
    result = await adapt(service, text(7, 60))
    assert result.metrics.nll_after < result.metrics.nll_before
    assert result.metrics.levels[0].updates == 4 and result.metrics.levels[0].drift > 0  # 16, 16, 16 and 11 tokens
    before = await generate(service, text(7, 30), owner=ANN, logprobs=2)
    other = await serving(checkpoint, deterministic=True)
    after = await generate(other, text(7, 30), owner=ANN, logprobs=2)
    assert after.logprobs == before.logprobs


async def _stored(service):
    return (await service.memories.store.load(ANN, fingerprint=service.info.fingerprint)).snapshot


async def test_a_part_whose_chunks_close_with_a_lesson_stores_no_open_gradient(serving, checkpoint):
    service = await serving(checkpoint, deterministic=True)
    for number, count in enumerate((8, 60)):
        await adapt(service, text(number, count), request_id=f"r{number}")
    stored = await _stored(service)
    assert list(stored.tensors) == ["0.delta.outer"]
    assert sum(len(t.data) for t in stored.tensors.values()) == service.info.memory_bytes
    assert {name: stored.counters[name] for name in ("tokens", "skipped")} == {"tokens": 7 + 59, "skipped": 9 + 5}
    assert (await service.memories.describe(ANN)).tokens_learned == 7 + 59


async def test_a_part_whose_chunks_go_on_stores_what_is_open(serving, folder):
    service = await serving(load_model(folder, write_part(folder.parent / "on.safetensors", folder, closes=False)))
    await adapt(service, text(1, 60))
    stored = await _stored(service)
    assert sorted(stored.tensors) == ["0.delta.outer", "0.gradient.outer"]
    assert sum(len(t.data) for t in stored.tensors.values()) == service.info.memory_bytes
    assert "skipped" not in stored.counters


async def test_a_lesson_after_another_is_learned_on_top_of_it(serving, folder, checkpoint):
    """What was just told is expected the second time; in one open chunk both would be learned from the beginning."""
    part = write_part(folder.parent / "on.safetensors", folder, closes=False)
    first = {}
    for name, model, owner in (("closes", checkpoint, ANN), ("goes on", load_model(folder, part), BOB)):
        service = await serving(model)
        for number in (1, 2):
            result = await adapt(service, text(3, 6), owner=owner, request_id=f"{name} {number}")
        first[name] = [result.metrics.nll_before, result.metrics.levels[0].updates]
    assert first["closes"][0] < first["goes on"][0]
    assert (first["closes"][1], first["goes on"][1]) == (2, 0)


async def test_a_base_without_a_part_learns_in_random_directions(serving, folder):
    service = await serving(load_model(folder))
    result = await adapt(service, text(7, 60))
    assert result.metrics.nll_after < result.metrics.nll_before


async def test_a_conversation_is_kept_as_its_tokens_and_read_again(serving, checkpoint):
    service = await serving(checkpoint, deterministic=True)
    first = await generate(service, text(1, 20), owner=ANN, session_id="s", max_tokens=10)
    other = await serving(checkpoint, deterministic=True)
    second = await generate(other, text(2, 7), owner=ANN, session_id="s", max_tokens=10, logprobs=2)
    whole = await generate(service, [*text(1, 20), *first.tokens, *text(2, 7)], max_tokens=10, logprobs=2)
    assert (first.session, second.session) == ("fresh", "resumed")
    assert second.logprobs == whole.logprobs
    usage = second.end.usage
    assert (usage.prompt_tokens, usage.reread_tokens) == (7, 30)
    stored = await service.memories.store.load_session(ANN, "s", fingerprint=checkpoint.fingerprint)
    assert sum(len(t.data) for t in stored.snapshot.tensors.values()) == 4 * (30 + 17)


async def test_a_conversation_keeps_its_version_until_asked_to_move(serving, checkpoint):
    service = await serving(checkpoint)
    await adapt(service, text(8, 45))
    await generate(service, text(1, 9), owner=ANN, session_id="s")
    await adapt(service, text(9, 45), request_id="r2")
    stayed = await generate(service, text(2, 4), owner=ANN, session_id="s")
    moved = await generate(service, text(2, 4), owner=ANN, session_id="s", memory=MemoryChoice(move_session=True))
    assert (stayed.version, moved.version) == (1, 2)


async def test_what_the_context_cannot_hold_is_refused_with_the_limit_and_the_remedy(serving, checkpoint):
    service = await serving(checkpoint, max_context_tokens=64)
    assert service.info.max_context_tokens == service.info.max_prompt_tokens == service.info.max_adapt_tokens == 64
    assert len((await generate(service, text(1, 40), max_tokens=24)).tokens) == 24
    with pytest.raises(InvalidRequest, match=r"40 of the prompt and 25 of the answer.*64 tokens; ask for at most 24"):
        await generate(service, text(1, 40), max_tokens=25)
    await generate(service, text(1, 30), owner=ANN, session_id="s", max_tokens=10)
    with pytest.raises(InvalidRequest, match=r"40 tokens of earlier turns, 20 of .*start a new session_id"):
        await generate(service, text(2, 20), owner=ANN, session_id="s", max_tokens=8)
    with pytest.raises(InvalidRequest, match="65 tokens are more than the limit of 64"):
        await adapt(service, text(1, 65))


async def test_no_context_goes_beyond_what_the_model_knows(serving, checkpoint):
    service = await serving(checkpoint, max_context_tokens=100_000)
    assert service.info.max_context_tokens == checkpoint.config.base.max_context_tokens == 128


async def test_a_memory_is_not_read_under_another_part(serving, checkpoint, folder):
    await adapt(await serving(checkpoint), text(1, 20))
    other = load_model(folder, write_part(folder.parent / "other.safetensors", folder, seed=9))
    for strange in (other, load_model(folder)):
        with pytest.raises(FailedPrecondition):
            await generate(await serving(strange), text(1, 20), owner=ANN)
