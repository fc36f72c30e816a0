"""Hope-Attention through vLLM as it starts and steps on a card: measured, captured, replayed with rows of nobody."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
import torch
from support.attention_checkpoint import converted, write_part
from support.engine_calls import ANN, adapt, generate
from support.vllm_card import SIZES, Card, delta_without_looking
from support.vllm_pair import pair, text
from support.vllm_promises import (
    test_a_memory_that_the_native_engine_learned_is_read,  # noqa: F401
    test_a_slot_that_was_anothers_shows_nothing_of_it,  # noqa: F401
    test_a_users_reply_is_the_same_beside_63_others,  # noqa: F401
    test_greedy_replies_are_the_native_engines,  # noqa: F401
    test_more_requests_than_slots_and_every_length_at_once,  # noqa: F401
)

import hope_serve.model.serving.block_pool as block_pool

SIZES_OF_MODEL = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512}

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attention")
    served, _ = converted(folder, "qwen2", **SIZES_OF_MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_pool, "cms_delta_projected", delta_without_looking)
        card = Card(patch, captures=True)
        async with pair(served, folder / "m.db", part=write_part(folder / "part.safetensors", served)) as running:
            yield running, card


@pytest.fixture(scope="module")
def both(started):
    return started[0]


@pytest.fixture(scope="module")
def card(started):
    return started[1]


async def test_a_step_of_nobody_gives_the_plain_models_rows(card):
    """While there is no cache yet but one to measure in, and when others' memories lie in the pool."""
    assert len(card.of_nobody) == 2
    for ours, plain in card.of_nobody:
        assert torch.isfinite(ours).all()
        assert torch.equal(ours, plain)


async def test_steps_of_drawn_tokens_are_replayed_with_rows_of_nobody_behind_the_real_ones(both, card):
    del card.replays[:]
    prompts = [text(seed, 9) for seed in range(3)]
    replies = await asyncio.gather(*(generate(both.vllm, prompt, max_tokens=6) for prompt in prompts))
    assert {key.num_tokens for key in card.graphs} == set(SIZES)
    assert (3, 4) in {(real, len(slots)) for real, slots in card.replays}
    for real, slots in card.replays:
        assert len(set(slots[:real])) == real
        assert all(slots[:real])
        assert not any(slots[real:])
    for prompt, reply in zip(prompts, replies, strict=True):
        assert reply.tokens == (await generate(both.native, prompt, max_tokens=6)).tokens


async def test_a_prompt_of_one_token_is_read_by_a_replayed_step_with_its_users_memory(both, card):
    await adapt(both.native, text(90, 70), owner=ANN, request_id="ann-card")
    del card.replays[:]
    ours, theirs = [await generate(s, [11], owner=ANN, max_tokens=6) for s in (both.native, both.vllm)]
    assert theirs.tokens == ours.tokens
    assert len(card.replays) == 6
