"""Linear Titans through vLLM, as a model without attention: the same promises, with a state that moves."""

from __future__ import annotations

import pytest
import pytest_asyncio
import torch
from support.tiny_model import write_tiny_checkpoint
from support.vllm_pair import pair
from support.vllm_promises import *  # noqa: F403  the promises are tests

from hope_serve.model.hope import HopeModel

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("titans")
    async with pair(write_tiny_checkpoint(folder / "tiny"), folder / "m.db") as running:
        yield running


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
