"""Hope-Attention through vLLM: the native engine's replies and likelihoods, memories, conversations and refusals."""

from __future__ import annotations

import pytest
import pytest_asyncio
import torch
from support.attention_checkpoint import converted, write_part
from support.vllm_pair import pair
from support.vllm_promises import *  # noqa: F403  the promises are tests

from hope_serve.model.attention_learn import place, read_hidden

SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512}

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attention")
    served, _ = converted(folder, "qwen2", **SIZES)
    async with pair(served, folder / "m.db", part=write_part(folder / "part.safetensors", served)) as running:
        yield running


@pytest.fixture(scope="module")
def exactly(both):
    model = both.loaded.model
    shape = model.config.base.shape()
    layers = model.weights.layers._replace(
        **{n: t.double() for n, t in model.weights.layers._asdict().items() if t is not None}
    )
    weights = model.weights._replace(
        embedding=model.weights.embedding.double(),
        head=model.weights.head.double(),
        norm=model.weights.norm.double(),
        layers=layers,
    )

    def logprobs(ids):
        tokens = torch.tensor([ids])
        where = place(shape, torch.arange(len(ids))[None], torch.ones_like(tokens), torch.float64)
        projection = model.part.tensors["projection"].double()
        hidden = read_hidden(shape, weights, tokens, where, projection=projection, memory=None)
        found = torch.log_softmax(hidden[0] @ weights.head.T, -1)
        return [float(found[i, token]) for i, token in enumerate(ids[1:])]

    return logprobs
