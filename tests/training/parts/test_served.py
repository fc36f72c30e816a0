"""What a served Adapt makes of a memory is what the trainer's learner makes of it."""

from __future__ import annotations

import pytest
import torch
from support.attention_checkpoint import CHUNK, converted, write_part
from support.engine_calls import ANN, adapt
from support.running_service import running_service

from hope_serve.memory.url import make_store
from hope_serve.model.attention_checkpoint import load_attention_checkpoint
from hope_serve.model.attention_learn import LayerFunctions
from hope_serve.model.load import load_model
from hope_serve.model.parts import load_part, with_start
from hope_serve.training.parts.memory import Learner
from hope_serve.training.parts.packing import Bucket, tell_row, told_tensors

RTOL, ATOL = 4e-3, 2e-4  # memories are kept in fp16, and rounded after every Adapt


def text(seed, count):
    return torch.randint(3, 290, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


TOLD = {
    "one of less than a chunk": [9],
    "one that fills a chunk": [CHUNK + 1],
    "one that goes on over two ends": [2 * CHUNK + 9],
    "several of less than a chunk": [5, 7],
    "several over several chunks": [12, 23, 4, 41],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = converted(tmp_path_factory.mktemp("base"), "qwen2")[0]
    write_part(folder / "memory.safetensors", folder)
    return folder


@torch.no_grad()
def taught_by_the_trainer(folder, texts):
    """B [L, d, r] after the texts, from nothing, in chunks that a text of any length sees all of."""
    base = load_attention_checkpoint(folder)
    shape = base.config.shape()
    part = load_part(folder / "memory.safetensors", shape, base=base.config.source.fingerprint)
    learner = Learner(
        shape=shape, weights=with_start(base.weights, part.tensors), part=part.tensors, functions=LayerFunctions()
    )
    chunks = sum(-(-(len(ids) - 1) // CHUNK) for ids in texts)
    bucket = Bucket(
        name="told",
        users=1,
        chunks=chunks,
        chunk_tokens=CHUNK,
        fact_chunks=chunks,
        learned_chunks=chunks,
        ask_tokens=0,
        other_tokens=0,
        facts=(0, 0),
        past_chunks=chunks,
    )
    told = told_tensors([tell_row(texts, noise=(), bucket=bucket)], bucket)
    return learner.teach(told, (told.mask > 0).any(-1), bucket)[0]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("told", TOLD)
async def test_a_served_lesson_is_the_trainers(tmp_path, folder, told):
    texts = [text(i, count) for i, count in enumerate(TOLD[told])]
    store = make_store(f"sqlite://{tmp_path}/memory.db")
    await store.open()
    async with running_service(load_model(folder), store, max_slots=2) as service:
        for i, ids in enumerate(texts):
            await adapt(service, ids, request_id=f"r{i}")
        warm = (await service.memories.base(ANN))[1]
    await store.close()
    ours = warm.learned.form.reading(warm.reads)["0.delta.outer"]
    theirs = taught_by_the_trainer(folder, texts)
    assert theirs.abs().max() > 100 * ATOL
    torch.testing.assert_close(ours.float(), theirs, rtol=RTOL, atol=ATOL)
