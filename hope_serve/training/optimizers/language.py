"""A language of 256 words in which people tell facts of two words: small enough to learn from nothing in minutes."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from hope_serve.training.episodes import Episodes
from hope_serve.training.plans import Plan, Stage

PAD, MY, IS, STOP, ASK, ANSWER, UNKNOWN, END, CALLED = range(9)
KEYS = range(16, 64)
FIRST, SECOND = range(64, 160), range(160, 256)
VOCAB_SIZE = 256
FACT_TOKENS, QUESTION_TOKENS = 6, 7
FACTS = 4
"""Of one Adapt."""


@dataclass(frozen=True)
class _Told:
    value: tuple[int, int]
    age: int
    corrected: bool = False


def facts_stage() -> Stage:
    """An Adapt of ``FACTS`` facts that ends a chunk."""
    return Stage(facts=FACTS, segments=((FACTS * FACT_TOKENS, True),))


def noise_stage() -> Stage:
    """An Adapt of as many random words, which ends a chunk."""
    return Stage(facts=0, segments=((FACTS * FACT_TOKENS, True),))


_TELLS, _NOISE = facts_stage(), noise_stage()
TRAINED = (
    Plan(name="two lessons", stages=(_TELLS, _TELLS), share=1.0),
    Plan(name="between noise", stages=(_TELLS, _NOISE, _TELLS, _NOISE), share=1.0, corrects=True),
    Plan(name="long ago", stages=(_TELLS, _TELLS, _NOISE, _NOISE, _NOISE), share=1.0),
)
"""In turn, a step each. Rules with momentum go on moving after a lesson: what is read at one distance alone is learned
for that distance alone (measured: recall .53 behind one lesson of noise, .01 at once)."""


def draw_episodes(plan: Plan, count: int, draw: random.Random) -> Episodes:
    """``count`` episodes of ``plan``; the last question of each is about something never told."""
    rows = [_episode(plan, draw) for _ in range(count)]
    ones = torch.ones
    return Episodes(
        stages=[torch.tensor([row[0][i] for row in rows]) for i in range(len(plan.stages))],
        masks=[ones(count, stage.tokens) for stage in plan.stages],
        questions=torch.tensor([row[1] for row in rows]),
        answer_weight=torch.tensor([row[2] for row in rows]),
        value_mask=torch.tensor([row[3] for row in rows]),
        age=torch.tensor([row[4] for row in rows]),
        corrected=torch.tensor([row[5] for row in rows]),
    )


def _episode(plan: Plan, draw: random.Random) -> tuple[list[list[int]], ...]:
    keys = draw.sample(KEYS, plan.num_facts + 1)
    unknown = keys.pop()
    told: dict[int, _Told] = {}
    stages = []
    last = max(i for i, stage in enumerate(plan.stages) if stage.facts)
    for i, stage in enumerate(plan.stages):
        own = [keys.pop() for _ in range(stage.facts)]
        corrects = plan.corrects and i == last and draw.random() < 0.5
        if corrects:
            own[0] = draw.choice(list(told))
        for key in own:
            told[key] = _Told((draw.choice(FIRST), draw.choice(SECOND)), i, corrected=corrects and key == own[0])
        draw.shuffle(own)
        words = [word for key in own for word in _telling(key, told[key].value, draw)]
        # One word more than the stage has targets: an opening, as a document's.
        stages.append([STOP, *(words or draw.choices(range(MY, VOCAB_SIZE), k=stage.tokens))])
    asked = list(told.items())
    # A corrected fact takes the place of two: asking it again keeps the shape.
    asked += [asked[-1]] * (plan.num_facts - len(asked))
    questions = [[ASK, MY, key, ANSWER, *fact.value, END] for key, fact in asked]
    questions.append([ASK, MY, unknown, ANSWER, UNKNOWN, END, PAD])
    weights = [[0.0] * 3 + [1.0, 1.0, 0.3] for _ in asked] + [[0.0] * 3 + [1.0, 0.3, 0.0]]
    values = [[0.0] * 3 + [1.0, 1.0, 0.0] for _ in asked] + [[0.0] * 6]
    ages = [fact.age for _, fact in asked] + [-1]
    corrected = [fact.corrected for _, fact in asked] + [False]
    return stages, questions, weights, values, ages, corrected  # type: ignore[return-value]


def _telling(key: int, value: tuple[int, int], draw: random.Random) -> list[int]:
    """Key first: one gradient step binds what comes next to what came before it, not the other way round."""
    return [MY, key, draw.choice((IS, CALLED)), *value, STOP]
