"""Plans of episodes: which stages of how many tokens, how many facts in each, where a chunk ends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One adaptation: ``facts`` facts (0: unrelated text) over segments (tokens, does a chunk end here?)."""

    facts: int
    segments: tuple[tuple[int, bool], ...]

    @property
    def tokens(self) -> int:
        """Tokens of all segments."""
        return sum(tokens for tokens, _ in self.segments)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The stages of an episode.

    corrects: half of the last stages with facts correct an older one.
    varies: a stage tells any number of facts, up to its own.
    free: told and asked in the words of ``lessons``, not in those of the generator.
    """

    name: str
    stages: tuple[Stage, ...]
    share: float
    corrects: bool = False
    needs_noise: bool = False
    varies: bool = False
    free: bool = False

    @property
    def num_facts(self) -> int:
        """Facts in all stages."""
        return sum(stage.facts for stage in self.stages)

    @property
    def tokens(self) -> int:
        """Tokens taught in all stages."""
        return sum(stage.tokens for stage in self.stages)


def _facts(count: int, *segments: tuple[int, bool]) -> Stage:
    return Stage(facts=count, segments=segments)


_EIGHT = _facts(8, (176, False))
_FOUR = _facts(4, (96, False))
_TWO = _facts(2, (64, False))
_NOISE = Stage(facts=0, segments=((128, True), (128, False)))
_MUCH_NOISE = Stage(facts=0, segments=((128, True), (256, True), (128, False)))

PLANS = (
    Plan(name="one", stages=(_EIGHT,), share=0.22),
    Plan(name="few", stages=(_EIGHT,), share=0.12, varies=True),
    Plan(name="single", stages=(_TWO,), share=0.12, varies=True),
    Plan(name="cut", stages=(_facts(8, (96, True), (80, False)),), share=0.12),
    Plan(name="two", stages=(_FOUR, _FOUR), share=0.12, corrects=True),
    Plan(name="later", stages=(_FOUR, _NOISE, _FOUR), share=0.12, corrects=True, needs_noise=True),
    Plan(
        name="long",
        stages=(_FOUR, _NOISE, _FOUR, _NOISE, _FOUR, _NOISE),
        share=0.1,
        corrects=True,
        needs_noise=True,
    ),
    Plan(name="far", stages=(_FOUR, _MUCH_NOISE, _FOUR, _MUCH_NOISE), share=0.08, corrects=True, needs_noise=True),
)
FREE_PLANS = (
    Plan(name="free_one", stages=(_facts(2, (96, False)),), share=0.5, varies=True, free=True),
    Plan(name="free_few", stages=(_facts(4, (192, False)),), share=0.5, varies=True, free=True),
)
EVERY_PLAN = (*PLANS, *FREE_PLANS)
