"""Linear Titans through vLLM, as a model without attention: the same promises, with a state that moves."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
import torch
from support.engine_calls import generate
from support.tiny_model import write_tiny_checkpoint
from support.vllm_card import SIZES, Card
from support.vllm_pair import pair
from support.vllm_promises import *  # noqa: F403  the promises are tests

from hope_serve.model.hope import HopeModel

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory):
    folder = tmp_path_factory.mktemp("titans")
    with pytest.MonkeyPatch.context() as patch:
        card = Card(patch, captures=False)
        async with pair(write_tiny_checkpoint(folder / "tiny"), folder / "m.db") as running:
            yield running, card


@pytest.fixture(scope="module")
def both(started):
    return started[0]


@pytest.fixture(scope="module")
def card(started):
    return started[1]


@pytest.fixture(scope="module")
def exactly(both):
    model = HopeModel(both.loaded.config)
    model.load_state_dict(both.loaded.model.state_dict())
    model = model.double()

    @torch.no_grad()
    def logprobs(ids):
        hidden, _ = model(torch.tensor([ids]), model.fresh_state(1))
        found = torch.log_softmax(model.logits(hidden[0]), -1)
        return [float(found[i, token]) for i, token in enumerate(ids[1:])]

    return logprobs


async def test_steps_of_one_row_each_name_every_rows_slot_also_of_a_prompt_of_one_token(both, card):
    del card.replays[:]
    prompts = [[11], [12], [13]]  # of one token each, so that every step is of one row each, whoever comes first
    replies = await asyncio.gather(*(generate(both.vllm, prompt, max_tokens=5) for prompt in prompts))
    assert len(card.replays) >= 5
    for real, slots in card.replays:
        assert len(slots) in SIZES
        assert all(slots[:real])
        assert not any(slots[real:])
    for prompt, reply in zip(prompts, replies, strict=True):
        assert reply.tokens == (await generate(both.native, prompt, max_tokens=5)).tokens
