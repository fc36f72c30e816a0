"""What 16 bits cost: the bundled model's log-probabilities against fp32 on the CPU, beside their noise."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.report import Figure
from hope_serve.config import BUNDLED_CHECKPOINT
from hope_serve.model.checkpoint import load_checkpoint
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.model import ServedModel
from hope_serve.model.serving.precision import Precision
from hope_serve.tokenizer import Tokenizer

TEXT = (
    "The ferry left the harbour at nine, and by noon the wind had turned. Nobody on deck spoke of the weather; they "
    "spoke of the market, of the price of wool, and of the child who had been born on the crossing a year before. "
) * 8


def precision() -> list[Figure]:
    """Mean distance of the log-probabilities of a text's tokens."""
    checkpoint = load_checkpoint(BUNDLED_CHECKPOINT)
    tokens = torch.tensor(Tokenizer.load(checkpoint.tokenizer_path).encode(TEXT))
    wanted = _logprobs(checkpoint.model, tokens, "cpu", cut=len(tokens))
    got = _logprobs(checkpoint.model, tokens, "cuda", cut=len(tokens))
    again = _logprobs(checkpoint.model, tokens, "cuda", cut=37)
    distance, noise = (got - wanted).abs().mean().item(), (got - again).abs().mean().item()
    return [
        Figure("hope-demo, log-probabilities, 16 bit on the card from fp32 on the CPU", distance, "nats a token"),
        Figure("hope-demo, the same text on the card, cut elsewhere", noise, "nats a token"),
    ]


def narrow_weights() -> list[Figure]:
    """The same on the CPU alone: token by token with weights of 16 bits, and in one piece with those of 32."""
    checkpoint = load_checkpoint(BUNDLED_CHECKPOINT)
    tokens = torch.tensor(Tokenizer.load(checkpoint.tokenizer_path).encode(TEXT))[:128]
    wide = _logprobs(checkpoint.model, tokens, "cpu", cut=len(tokens))
    narrow = _logprobs(checkpoint.model, tokens, "cpu", cut=1)
    distance = (narrow - wide).abs()
    return [
        Figure(
            "log-probabilities, weights of 16 bits on the CPU from those of 32", distance.mean().item(), "nats a token"
        ),
        Figure("the same, the worst token", distance.max().item(), "nats"),
    ]


@torch.no_grad()
def _logprobs(model: torch.nn.Module, tokens: Tensor, device: str, *, cut: int) -> Tensor:
    """Of every token but the first, [T - 1], read in pieces of ``cut``."""
    served = ServedModel(model, device=device, precision=Precision.of(model.config, device))
    state, found = served.state_pool(1), []
    state.clear(1)
    for piece in tokens[:-1].split(cut):
        batch = Batch(
            tokens=piece.to(device),
            slots=torch.tensor([1], dtype=torch.int32, device=device),
            starts=torch.tensor([0, len(piece)], dtype=torch.int32, device=device),
        )
        found.append(torch.log_softmax(served.logits(served.run(batch, state, None)), -1).cpu())
    return torch.cat(found).gather(1, tokens[1:, None])[:, 0]
