"""``language`` with a Transformer beside the model: columns of its own, from its folder, with no server."""

from __future__ import annotations

import math

import pytest
import torch
from support.tiny_model import VOCAB_SIZE
from support.training_run import write_run

from hope_serve.cli.evaluating import load_rival
from hope_serve.errors import InvalidRequest
from hope_serve.evals.language import Language
from hope_serve.tokenizer import Tokenizer
from hope_serve.training.config import TrainConfig
from hope_serve.training.rival import train
from hope_serve.training.rival_reader import RivalReader

SENTENCE = "The ferry leaves the harbour at nine and the gulls follow it past the lighthouse. "
SCALE = 0.01


def trained(folder, tokenizer, *, text=SENTENCE * 200, seconds=4.0):
    run = write_run(folder, tokenizer, steps=8)
    (folder / "train.txt").write_text(text)
    run.write_text(run.read_text().replace("text_tokens = 48", "text_tokens = 96"))
    return train(TrainConfig.load(run), seconds=seconds, rate=1e-2, out=folder / "rival")


@pytest.fixture(scope="session")
def rival_folder(checkpoint, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("run"), checkpoint / "tokenizer.json")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "ferry.txt"
    path.write_text(SENTENCE * 20)
    return path


@pytest.fixture
def passages(tmp_path):
    path = tmp_path / "last.txt"
    path.write_text("The ferry leaves the harbour at nine\nThe ferry leaves the harbour\n")
    return path


async def test_a_rival_has_its_columns_and_lines(open_subject, rival_folder, text, passages):
    rival = load_rival(rival_folder)
    async with open_subject(max_prompt_tokens=80) as subject:
        report = await Language(files=(text,), lambada=passages, rival=rival, scale=SCALE).run(subject, None)
    bits, positions, twice, last = report.tables
    assert report.failures == ()
    assert bits.head == "windows of 80 tokens"
    assert bits.columns[3:] == ("rival, context, 16 tokens before", "rival, neither")
    (line,) = bits.lines
    assert all(cell > 0 for cell in (*line.cells[2:],))
    assert bits.cell("ferry", "rival, neither") < bits.cell("ferry", "neither")  # it was trained on this text
    assert [line.name for line in positions.lines] == ["ferry", "ferry, rival"]
    assert all(nats > 0 for line in positions.lines for nats in line.cells)
    assert [line.name for line in twice.lines] == ["40 tokens, twice in a row", "40 tokens, twice in a row, rival"]
    assert all(nats > 0 for nats in twice.lines[1].cells)
    assert last.cell("nats of the word", "rival, all in the prompt") > 0
    assert "in rows of 96" in report.notes[0]


async def test_what_it_says_is_what_its_model_says(rival_folder):
    rival = RivalReader.load(rival_folder)
    row = rival.encode(SENTENCE)
    said = await rival.token_logprobs(row[:4], row[4:])
    logits = rival._model(torch.tensor([row]))[0]
    meant = [logits[at - 1].log_softmax(-1)[row[at]].item() for at in range(4, len(row))]
    assert said == pytest.approx(meant, abs=1e-4)
    logprob, greedy = await rival.word("The ferry leaves the harbour at", " nine")
    nine = await rival.token_logprobs(rival.encode("The ferry leaves the harbour at"), rival.encode(" nine"))
    assert logprob == pytest.approx(math.fsum(nine), abs=1e-4)
    assert isinstance(greedy, bool)


async def test_a_rival_of_other_tokens_is_refused(open_subject, text, tmp_path):
    other = tmp_path / "tokenizer.json"
    Tokenizer.train(["unlike anything else " * 50], VOCAB_SIZE - 90).save(other)
    rival = load_rival(trained(tmp_path / "other", other, seconds=0.01))
    async with open_subject() as subject:
        with pytest.raises(InvalidRequest, match="other ids than the server"):
            await Language(files=(text,), rival=rival, scale=SCALE).run(subject, None)


def test_a_folder_without_a_rival_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match=r"--rival.*holds no trained rival"):
        load_rival(tmp_path)
