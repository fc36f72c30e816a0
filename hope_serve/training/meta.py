"""The outer loss: teach a memory by gradient steps, drop the context, ask, and learn from the answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_serve.model.cadence import Cadence
from hope_serve.model.cms_state import CmsState
from hope_serve.model.hope import Deltas, HopeModel
from hope_serve.model.learn import accumulate, fire, level_rules, read_deltas, segment_gradient
from hope_serve.training.config import LossConfig
from hope_serve.training.episodes import Episodes
from hope_serve.training.plans import Plan

CHUNK = 2
"""Tokens that stand for the fastest level's chunk: plans tell where one ends, not how long it is."""


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What is left after an episode's stages: the memory as it reads, and the loss on what was told."""

    deltas: Deltas
    nll: Tensor


def teach(model: HopeModel, plan: Plan, episodes: Episodes, *, create_graph: bool) -> Taught:
    """Run the stages of ``plan`` one after the other, each in a fresh context, exactly as the server adapts.

    Where a plan says that a chunk ends, the fastest level's does; slower ones fire at the pace that their chunks have.
    """
    batch = episodes.questions.shape[0]
    cms, rules, cadence = CmsState.fresh(model, batch), level_rules(model), _cadence(model)
    told: list[Tensor] = []
    for stage, tokens, mask in zip(plan.stages, episodes.stages, episodes.masks, strict=True):
        state, at = model.fresh_state(batch), 0
        for length, fires in stage.segments:
            span = slice(at, at + length)
            segment = segment_gradient(
                model,
                tokens[:, :-1][:, span],
                tokens[:, 1:][:, span],
                state,
                tuple(level.delta for level in cms.levels),
                consumed=at,
                mask=mask[:, span],
                create_graph=create_graph,
            )
            cms = accumulate(cms, segment.gradients)
            if fires:
                cadence = cadence.after(cadence.room())
                cms = fire(rules, cms, cadence.fired())
            elif cadence.room() == CHUNK:
                cadence = cadence.after(1)
            if stage.facts:
                told.append((segment.nll * mask[:, span]).sum() / mask[:, span].sum())
            state, at = segment.state, at + length
    return Taught(deltas=read_deltas(rules, cms, cadence), nll=torch.stack(told).mean())


def _cadence(model: HopeModel) -> Cadence:
    """The levels' periods, with two tokens for the fastest one's chunk: none of them, or some."""
    sizes = [model.config.levels[i].chunk_size for i in model.config.online_levels]
    return Cadence(chunk_sizes=tuple(CHUNK * size // sizes[0] for size in sizes))


def ask(model: HopeModel, questions: Tensor, deltas: Deltas | None) -> Tensor:
    """Logits [B, Q, T - 1, V] of each question and its answer in a fresh context of its own.

    Args:
        questions: [B, Q, T].
        deltas: of B memories, or None for the model without any.
    """
    batch, count, _ = questions.shape
    rows = questions.flatten(0, 1)[:, :-1]
    hidden, _ = model(rows, model.fresh_state(batch * count), deltas=deltas)
    return model.logits(hidden).view(batch, count, *hidden.shape[1:-1], -1)


def episode_loss(
    model: HopeModel,
    plan: Plan,
    episodes: Episodes,
    weights: LossConfig,
    unknown: Tensor,
    *,
    reading: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> tuple[Tensor, Tensor]:
    """The loss of one batch of episodes, and its parts (answers, unknown, blank, taught) for the log.

    ``unknown``: a scalar in [0, 1] by which the questions about untold things count; ``reading``: what the questions
    are asked in.
    """
    taught = teach(model, plan, episodes, create_graph=True)
    with reading():
        nll = _answer_nll(model, episodes.questions, taught.deltas)
        blanks = _answer_nll(model, episodes.questions[:, -1:], None)
    known = episodes.answer_weight * (episodes.age >= 0)[..., None]
    answer = (nll * known).sum() / known.sum()
    other = episodes.answer_weight - known
    abstain = (nll * other).sum() / other.sum()
    # Without any memory, one of the questions about what was never told is enough: all are alike to it.
    blank = (blanks * other[:, -1:]).sum() / other[:, -1:].sum()
    loss = weights.answer * answer + weights.taught * taught.nll
    loss = loss + unknown * (weights.unknown * abstain + weights.blank * blank)
    return loss, torch.stack([answer, abstain, blank, taught.nll]).detach()


def _answer_nll(model: HopeModel, questions: Tensor, deltas: Deltas | None) -> Tensor:
    """Loss of every target token [B, Q, T - 1]."""
    logits = ask(model, questions, deltas)
    nll = F.cross_entropy(logits.flatten(0, 2), questions[..., 1:].flatten(), reduction="none")
    return nll.view(*questions.shape[:2], -1)


def text_loss(model: HopeModel, rows: Tensor, weights: Tensor) -> Tensor:
    """Mean next-token loss in nats of rows [B, T + 1] by the weights [B, T] of their targets, without any memory."""
    hidden, _ = model(rows[:, :-1], model.fresh_state(rows.shape[0]))
    nll = F.cross_entropy(model.logits(hidden).flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
    return (nll * weights.flatten()).sum() / weights.sum()


@torch.no_grad()
def recall(model: HopeModel, plan: Plan, episodes: Episodes) -> dict[str, float]:
    """Share of facts whose value every greedy step gets right, given the answer so far.

    Keys: ``with`` and ``without`` the memory, ``oldest`` (told in the first stage), ``corrected``.
    """
    taught = teach(model, plan, episodes, create_graph=False)
    right = _values_right(ask(model, episodes.questions, taught.deltas), episodes)
    blank = _values_right(ask(model, episodes.questions, None), episodes)
    known = episodes.age >= 0
    groups = {"with": known, "oldest": known & (episodes.age == 0), "corrected": episodes.corrected}
    shares = {name: right[group].float().mean().item() for name, group in groups.items() if group.any()}
    return shares | {"without": blank[known].float().mean().item()}


def _values_right(logits: Tensor, episodes: Episodes) -> Tensor:
    """[B, Q]: whether every value token is the likeliest."""
    hit = logits.argmax(-1) == episodes.questions[..., 1:]
    return (hit | (episodes.value_mask == 0)).all(-1)
