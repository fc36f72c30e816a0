"""Generation through a running engine: right tokens for everybody, whoever shares the batch."""

from __future__ import annotations

import asyncio
import time

import pytest
import torch
from support.engine_calls import ANN, adapt, generate, generate_all, ids
from support.tiny_model import write_tiny_checkpoint
from support.waiting import until

from hope_serve.api import (
    Delta,
    Ended,
    FinishReason,
    GenerateRequest,
    MemoryChoice,
    OnMissing,
    SamplingParams,
    ScoreRequest,
)
from hope_serve.errors import DeadlineExceeded, Exhausted, InvalidRequest, NotFound
from hope_serve.metrics import Metrics
from hope_serve.model.checkpoint import load_checkpoint
from hope_serve.model.config import TitansConfig
from hope_serve.tokenizer import Tokenizer


def greedy(checkpoint, prompt, count, deltas=None):
    """The model called directly, the whole text anew for every token."""
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            hidden, _ = checkpoint.model(torch.tensor([tokens]), checkpoint.model.fresh_state(1), deltas=deltas)
            tokens.append(int(checkpoint.model.logits(hidden[0, -1]).argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("length", [1, 7, 8, 9, 40])
async def test_greedy_tokens_are_the_models_own(engine, checkpoint, length):
    prompt = ids(1, length)
    assert (await generate(engine, prompt, max_tokens=20)).tokens == greedy(checkpoint, prompt, 20)


async def test_many_at_once_get_what_each_gets_alone(engine, checkpoint):
    prompts = [ids(seed, 1 + seed * 3 % 37) for seed in range(20)]
    replies = await asyncio.gather(*(generate(engine, p, max_tokens=5 + i % 9) for i, p in enumerate(prompts)))
    for i, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        assert reply.tokens == greedy(checkpoint, prompt, 5 + i % 9)


@pytest.mark.parametrize("read", ["causal", "snapshot"])
async def test_mlp_memories_share_a_batch_wherever_they_stand_in_their_chunks(open_engine, tmp_path, read):
    titans = TitansConfig(num_heads=2, chunk_size=8, memory="mlp", mlp_hidden_size=16, eta_max=0.3, read=read)
    checkpoint = load_checkpoint(write_tiny_checkpoint(tmp_path / "mlp", titans=titans))
    prompts = [ids(seed, 1 + seed * 3 % 37) for seed in range(8)]
    async with open_engine(model=checkpoint) as engine:
        await adapt(engine, ids(9, 70))
        replies = await asyncio.gather(*(generate(engine, p, max_tokens=5 + i) for i, p in enumerate(prompts)))
        before = await generate(engine, prompts[0], max_tokens=12)
        taught = await generate(engine, prompts[0], owner=ANN, max_tokens=12)
    for i, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        assert reply.tokens == greedy(checkpoint, prompt, 5 + i)
    assert taught.version == 1
    assert taught.tokens != before.tokens


async def test_more_requests_than_slots_all_end(open_engine, checkpoint):
    async with open_engine(max_slots=3) as engine:
        replies = await asyncio.gather(*(generate(engine, ids(i, 5), max_tokens=4) for i in range(12)))
    assert [r.tokens for r in replies] == [greedy(checkpoint, ids(i, 5), 4) for i in range(12)]


async def test_prompt_longer_than_a_step_is_fed_in_pieces(open_engine, checkpoint):
    async with open_engine(max_batch_tokens=10) as engine:
        assert (await generate(engine, ids(2, 95))).tokens == greedy(checkpoint, ids(2, 95), 8)


async def test_deterministic_mode_is_the_same_to_the_bit_alone_and_in_company(open_engine):
    async with open_engine(deterministic=True) as engine:
        await adapt(engine, ids(9, 40))
        ask = lambda: generate(engine, ids(3, 21), owner=ANN, max_tokens=12, logprobs=5)
        alone = await ask()
        crowd = [generate(engine, ids(i, 3 + i), max_tokens=10) for i in range(9)]
        lesson = adapt(engine, ids(8, 60), owner=ANN, request_id="r2", mode=_dry_run())
        in_company = (await asyncio.gather(ask(), *crowd, lesson))[0]
    assert alone.tokens == in_company.tokens
    assert alone.logprobs == in_company.logprobs


def _dry_run():
    from hope_serve.api import AdaptMode

    return AdaptMode.DRY_RUN


async def test_seed_decides_the_draw_whoever_else_runs(engine):
    draw = lambda seed: generate(engine, ids(4, 9), temperature=1.5, seed=seed, max_tokens=16)
    first = await draw(11)
    again, *_ = await asyncio.gather(draw(11), draw(12), draw(13))
    assert again.tokens == first.tokens
    assert (await draw(12)).tokens != first.tokens


async def test_choices_of_one_seed_are_repeatable_and_nobody_elses(engine):
    """No choice equals one of a neighbouring seed, and seeds that share their lower 32 bits share nothing else."""
    draw = lambda seed, n: generate_all(engine, ids(5, 30), n=n, temperature=2.0, seed=seed, max_tokens=12)
    replies = await draw(7, 4)
    assert [r.tokens for r in await draw(7, 4)] == [r.tokens for r in replies]
    assert (await draw(7, 1))[0].tokens == replies[0].tokens
    assert all(r.end.usage.prompt_tokens == 30 for r in replies)
    said = [tuple(r.tokens) for seed in (7, 8, 9, 10, 7 + 2**32, 7 + 2**62) for r in await draw(seed, 4)]
    assert len(set(said)) == len(said) == 24


async def test_greedy_choices_agree(engine):
    one, two, three = await generate_all(engine, ids(5, 11), n=3)
    assert one.tokens == two.tokens == three.tokens


async def test_length_and_stop_are_told_apart(engine, checkpoint):
    expected = greedy(checkpoint, ids(1, 9), 8)
    assert (await generate(engine, ids(1, 9))).end.finish_reason is FinishReason.LENGTH
    stopped = await generate(engine, ids(1, 9), stop_token_ids=(expected[3],))
    cut = expected.index(expected[3])
    assert stopped.end.finish_reason is FinishReason.STOP
    assert stopped.tokens == expected[:cut]
    assert stopped.end.usage.completion_tokens == cut + 1


async def test_min_tokens_keep_a_stop_token_away(engine, checkpoint):
    first = greedy(checkpoint, ids(1, 9), 1)[0]
    reply = await generate(engine, ids(1, 9), stop_token_ids=(first,), min_tokens=3, max_tokens=6)
    assert len(reply.tokens) >= 3
    assert first not in reply.tokens[:3]


async def test_tokens_and_logprobs_of_an_answer_are_those_of_its_text(engine, checkpoint):
    """Neither the token that ends it nor those of a stop string alone are among them."""
    tokenizer = Tokenizer.load(checkpoint.tokenizer_path)
    whole = await generate(engine, ids(6, 12), max_tokens=24)
    for stop in {whole.text[i : i + 3] for i in range(1, len(whole.text) - 3)}:
        reply = await generate(engine, ids(6, 12), max_tokens=24, stop=(stop,), logprobs=0)
        assert [entry.token for entry in reply.logprobs] == reply.tokens
        assert tokenizer.decode(reply.tokens).startswith(reply.text)
        if reply.text and "\ufffd" not in reply.text:  # which bytes make up a replacement character is nobody's
            assert not tokenizer.decode(reply.tokens[:-1]).startswith(reply.text)
        assert reply.end.usage.completion_tokens >= len(reply.tokens)
    end = whole.tokens[5]
    reply = await generate(engine, ids(6, 12), max_tokens=24, stop_token_ids=(end,), logprobs=0)
    assert end not in [*reply.tokens, *(entry.token for entry in reply.logprobs)]
    assert len(reply.logprobs) == len(reply.tokens)


async def test_min_tokens_keep_a_stop_string_away(engine, checkpoint):
    """What the first min_tokens tokens say is the answer's, even if it is a stop string."""
    tokenizer = Tokenizer.load(checkpoint.tokenizer_path)
    whole = await generate(engine, ids(6, 12), max_tokens=24)
    stops = tuple(dict.fromkeys(tokenizer.decode([token]) for token in whole.tokens if tokenizer.decode([token])))[:16]
    assert (await generate(engine, ids(6, 12), max_tokens=24, stop=stops)).tokens == []
    for least in (1, 4, 9):
        reply = await generate(engine, ids(6, 12), max_tokens=24, stop=stops, min_tokens=least)
        assert len(reply.tokens) >= least
        assert reply.tokens == whole.tokens[: len(reply.tokens)]
        assert reply.text == whole.text[: len(reply.text)]


async def test_stop_string_ends_the_text_before_it_even_across_tokens(engine):
    whole = (await generate(engine, ids(6, 12), max_tokens=24)).text
    stop = whole[7:12]
    reply = await generate(engine, ids(6, 12), max_tokens=24, stop=(stop, "never said"))
    assert reply.text == whole[: whole.find(stop)]
    assert reply.end.matched_stop == stop
    assert reply.end.finish_reason is FinishReason.STOP


async def test_streamed_pieces_join_to_the_whole_text(engine, checkpoint):
    reply = await generate(engine, ids(7, 5), max_tokens=60, temperature=3.0, seed=1)
    assert "".join(reply.pieces) == Tokenizer.load(checkpoint.tokenizer_path).decode(reply.tokens)


async def test_logprobs_are_those_of_the_distribution(engine, checkpoint):
    reply = await generate(engine, ids(8, 6), logprobs=3, max_tokens=1)
    with torch.no_grad():
        hidden, _ = checkpoint.model(torch.tensor([ids(8, 6)]), checkpoint.model.fresh_state(1))
        expected = torch.log_softmax(checkpoint.model.logits(hidden[0, -1]), -1)
    (entry,) = reply.logprobs
    assert entry.logprob == pytest.approx(float(expected.max()), abs=1e-5)
    assert [t for t, _ in entry.top] == expected.topk(3).indices.tolist()


async def test_logit_bias_can_force_a_token(engine):
    reply = await generate(engine, ids(8, 6), logit_bias=((42, 100.0),), max_tokens=5)
    assert reply.tokens == [42] * 5


async def test_memory_changes_only_its_owners_answers(engine):
    before = await generate(engine, ids(3, 9), owner=ANN, logprobs=1)
    result = await adapt(engine, ids(3, 50))
    after = await generate(engine, ids(3, 9), owner=ANN, logprobs=1)
    other = await generate(engine, ids(3, 9), logprobs=1)
    assert before.version == 0 and after.version == result.version == 1
    assert after.logprobs != before.logprobs
    assert other.logprobs == before.logprobs


async def test_missing_memory_is_the_base_model_or_an_error_as_asked(engine):
    assert (await generate(engine, ids(1, 4), owner=ANN)).version == 0
    with pytest.raises(NotFound):
        await generate(engine, ids(1, 4), owner=ANN, memory=MemoryChoice(on_missing=OnMissing.FAIL))


async def test_version_asked_for_is_the_version_read(engine):
    for i in range(3):
        await adapt(engine, ids(i, 20), request_id=f"r{i}")
    assert (await generate(engine, ids(1, 4), owner=ANN, memory=MemoryChoice(min_version=2))).version == 3
    assert (await generate(engine, ids(1, 4), owner=ANN, memory=MemoryChoice(exact_version=2))).version == 2
    with pytest.raises(NotFound, match=r"min_version is 4, but the memory stands at version 3"):
        await generate(engine, ids(1, 4), owner=ANN, memory=MemoryChoice(min_version=4))


async def test_leaving_early_frees_the_slot_within_a_step(open_engine):
    async with open_engine(max_slots=1) as engine:
        sampling = SamplingParams(max_tokens=100_000, temperature=0.0, ignore_eos=True)
        stream = engine.generate(GenerateRequest(prompt=tuple(ids(1, 5)), sampling=sampling))
        async for event in stream:
            if getattr(event, "token_ids", ()):
                break
        await stream.aclose()
        async with asyncio.timeout(5):
            await generate(engine, ids(2, 5))


async def test_who_reads_slowly_gets_all_that_came_meanwhile_at_once(open_engine):
    """The same text and tokens as everybody, in fewer pieces."""
    metrics = Metrics()
    async with open_engine(metrics=metrics) as engine:
        wanted = await generate(engine, ids(1, 5), max_tokens=40, logprobs=2)
        assert len(wanted.pieces) > 1
        sampling = SamplingParams(max_tokens=40, temperature=0.0, ignore_eos=True, logprobs=2)
        stream = engine.generate(GenerateRequest(prompt=tuple(ids(1, 5)), sampling=sampling))
        first = None
        async for event in stream:
            if isinstance(event, Delta):
                first = event
                break
        await until(lambda: metrics.registry.get_sample_value("hope_generation_tokens_total") == 80)
        await until(lambda: metrics.registry.get_sample_value("hope_requests_running") == 0)
        rest = [event async for event in stream]
        deltas = [first, *(event for event in rest if isinstance(event, Delta))]
        assert len(deltas[1].token_ids) > 1
        assert len(deltas) < len(wanted.pieces)
        assert [token for delta in deltas for token in delta.token_ids] == wanted.tokens
        assert "".join(delta.text for delta in deltas) == wanted.text
        assert [one.top for delta in deltas for one in delta.logprobs] == [one.top for one in wanted.logprobs]
        assert isinstance(rest[-1], Ended)


async def test_deadline_that_passes_is_never_reported_as_length(engine):
    with pytest.raises(DeadlineExceeded):
        await generate(engine, ids(1, 5), max_tokens=1_000_000, deadline=time.monotonic() + 0.2)


async def test_a_deadline_that_passes_in_the_queue_ends_the_wait(open_engine):
    """Nothing of it was computed, and who holds the slot goes on."""
    metrics = Metrics()
    async with open_engine(max_slots=1, metrics=metrics) as engine:
        running = asyncio.create_task(generate(engine, ids(1, 5), max_tokens=100_000))
        await until(lambda: metrics.registry.get_sample_value("hope_requests_running") == 1)
        for call in (
            lambda deadline: generate(engine, ids(2, 5), deadline=deadline),
            lambda deadline: engine.score(ScoreRequest(prompt=(7, 8), continuations=((9,), (10,)), deadline=deadline)),
        ):
            began = time.monotonic()
            async with asyncio.timeout(10):
                with pytest.raises(DeadlineExceeded):
                    await call(began + 0.3)
            assert time.monotonic() - began > 0.25
            assert not running.done()
        await until(lambda: metrics.registry.get_sample_value("hope_requests_waiting") == 0)
        assert metrics.registry.get_sample_value("hope_queue_tokens") == 0
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await until(lambda: metrics.registry.get_sample_value("hope_requests_running") == 0)


async def test_hopeless_deadline_is_refused_at_admission_with_an_estimate(engine):
    with pytest.raises(DeadlineExceeded) as refused:
        await generate(engine, ids(1, 5000), deadline=time.monotonic() + 1e-4)
    assert float(refused.value.details["estimate_seconds"]) > 0


async def test_full_queue_refuses_with_a_time_to_retry(open_engine):
    async with open_engine(max_slots=1, max_queue_tokens=30) as engine:
        tasks = [asyncio.ensure_future(generate(engine, ids(i, 20), max_tokens=200)) for i in range(5)]
        done, _ = await asyncio.wait(tasks, timeout=20)
        refused = [t.exception() for t in done if t.exception()]
        assert refused and all(isinstance(e, Exhausted) and e.retry_after > 0 for e in refused)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (await generate(engine, ids(1, 3))).tokens


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ([], {}, "prompt: 0 tokens are fewer than 1"),
        ([99_999], {}, "prompt: token id 99999 is outside the vocabulary"),
        ([-1], {}, "prompt: token id -1 is outside the vocabulary"),
        ([7], {"stop_token_ids": (10**6,)}, "sampling.stop_token_ids: token id 1000000"),
        ([7], {"logit_bias": ((-3, 1.0),)}, "sampling.logit_bias: token id -3"),
        ([7], {"session_id": "s"}, "session_id: a conversation needs a user_id"),
    ],
)
async def test_bad_request_is_refused_by_field(engine, prompt, options, message):
    with pytest.raises(InvalidRequest, match=message):
        await generate(engine, prompt, **options)
    assert (await generate(engine, ids(1, 3))).tokens
