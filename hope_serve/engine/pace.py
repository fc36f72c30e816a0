"""How long the parts of a step take, and how much may be done beside drawing. No model code.

Who draws is to keep at least half of the speed that it has alone, whatever others bring. So what a step does beside the
drawing of one tenant may take only a share of the time which that drawing takes by itself: the prompts and lessons of
everybody, and the rows that other tenants draw.
"""

from __future__ import annotations

from dataclasses import dataclass

OWN_SHARE = 1.0
"""Prompts and lessons beside the drawing of the same tenant, in units of the time that drawing takes."""
OTHERS_SHARE = 0.2
"""What other tenants bring, rows that they draw included. It is far less than as much again because of what no step
shows: other threads that want the processor and the interpreter, caches that others have filled. On two cores that took
a quarter to a third: of .4 a stream was left .47 to .59, .42 in the least of eight rounds; of .2 .54 to .70, .44 in the
least. A prompt of another tenant is read in a sixth of the time, and no longer in two sevenths."""
LEAST_SHARE = 0.1
"""Prompts and lessons get at least this much, however many rows are drawn."""
LEAST_STEP_TOKENS = 16
"""Prompt tokens that go in a step, however long they take; fewer say nothing about how fast they go."""
PROBE_STEPS = 32
"""After so many steps the rows of the tenants that have least are drawn by themselves, to know how long that takes."""
PROBE_LESSONS = 16
"""After so many steps with lessons one more learns than is sure to be done in time, to know how long one more takes."""
COMPANY_SHARE = 0.25
"""Lessons go with another that takes its time anyway, if they make the step longer by no more than this share: most of
what a segment costs may be its launches, and those are the same for one lesson and for eight."""

# Until a rate was measured, assume a slow one: a deadline refused in error costs a retry, one missed costs the work.
ASSUMED_TOKENS_PER_SECOND = 1000.0
RATE_MEMORY = 0.9
FIT_MEMORY = 0.95


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What could go into a step.

    Args:
        rows: how many sequences of each tenant draw.
        others: whether prompts or lessons are of a tenant that is not the only one to draw.
        prompts, lessons: whether any wait.
    """

    rows: dict[str, int]
    others: bool
    prompts: bool
    lessons: bool


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What goes into a step.

    Args:
        rows: sequences that draw.
        prompt_tokens: 0: no prompt is read.
        lessons: whether any learn.
        beside_seconds: how long prompts and lessons may take in every step, on average.
    """

    rows: int
    prompt_tokens: int
    lessons: bool
    beside_seconds: float


@dataclass(frozen=True, kw_only=True)
class Spent:
    """A step that was taken: what was in it, and the seconds of its two parts."""

    rows: int
    prompt_tokens: int
    lessons: int
    reading: float
    learning: float
    beside_seconds: float


class Pace:
    """Learns how fast rows, prompts and lessons go, and shares out the next step.

    Prompts and lessons beside drawing run up a debt, which the drawing of the following steps pays off; where both
    wait, whichever has had less time goes first. The steps between, without prompts, tell how long drawing takes.

    Args:
        max_step_tokens: known tokens that one step may feed besides the decoding sequences.
    """

    def __init__(self, max_step_tokens: int) -> None:
        self._max_step_tokens = max_step_tokens
        self._drawing, self._learning = _Line(), _Line()
        self._debt = 0.0
        self._lead = 0.0  # seconds that prompts have had more than lessons, while both wait
        self._read_last = self._learned_last = False
        self._lessons_since_probe = 0
        self._steps_since_probe = 0
        self._part_of_a_row = 0.0
        self.tokens_per_second = ASSUMED_TOKENS_PER_SECOND

    def allow(self, wanted: Wanted) -> Allowance:
        """What the next step may hold."""
        if not (wanted.prompts and wanted.lessons):
            self._lead = 0.0
        allowance = self._beside_drawing(wanted) if wanted.rows else self._by_themselves(wanted)
        self._read_last = bool(wanted.rows and allowance.prompt_tokens)
        return allowance

    def measured(self, spent: Spent) -> None:
        """Learn from a step."""
        reading = self._prompt_seconds(spent)
        if spent.prompt_tokens >= LEAST_STEP_TOKENS and reading > 0:
            self.tokens_per_second = _smoothed(self.tokens_per_second, spent.prompt_tokens / reading)
        if spent.lessons and spent.learning > 0:
            self._learning.add(spent.lessons, spent.learning)
        self._lead += reading - spent.learning
        beside = reading + spent.learning - spent.beside_seconds - self._hidden_seconds(spent)
        self._learned_last = spent.lessons > 0
        self._debt = max(0.0, self._debt + beside) if spent.rows else 0.0

    def lessons(self, wanted: int, seconds: float) -> int:
        """How many of the ``wanted`` lessons learn a segment in a step: as many as take ``seconds``, and always one.

        It is the lessons that count, not their tokens: on a card a short segment takes about as long as a whole one.
        """
        if not self._learning.known:
            return 1
        limit = max(seconds, (1 + COMPANY_SHARE) * self._learning.at_most(1))
        sure = next((count for count in range(1, wanted) if self._learning.at_most(count + 1) > limit), wanted)
        self._lessons_since_probe += 1
        if sure == wanted or self._lessons_since_probe < PROBE_LESSONS:
            return sure
        self._lessons_since_probe = 0
        return sure + 1

    def _by_themselves(self, wanted: Wanted) -> Allowance:
        """Nobody draws: every prompt that fits, and lessons for as long as prompts took."""
        prompt_tokens = self._max_step_tokens if wanted.prompts else 0
        lessons = wanted.lessons and self._lead >= 0
        return Allowance(rows=0, prompt_tokens=prompt_tokens, lessons=lessons, beside_seconds=0.0)

    def _beside_drawing(self, wanted: Wanted) -> Allowance:
        rows, beside = self._rows(wanted)
        reads = wanted.prompts and not self._read_last and (not wanted.lessons or self._lead <= 0)
        learns = wanted.lessons and (not wanted.prompts or self._lead > 0)
        # A step that tells how long drawing takes comes first; and a debt of next to nothing is none.
        if not beside or self._debt > beside / 8:
            reads = learns = False
        tokens = max(LEAST_STEP_TOKENS, round(2 * beside * self.tokens_per_second)) if reads else 0
        return Allowance(
            rows=rows, prompt_tokens=min(tokens, self._max_step_tokens), lessons=learns, beside_seconds=beside
        )

    def _rows(self, wanted: Wanted) -> tuple[int, float]:
        """How many rows are drawn, and how long prompts and lessons may take beside them."""
        few, every = min(wanted.rows.values()), sum(wanted.rows.values())
        alone, a_row = self._drawing.at(few), self._drawing.slope
        if len(wanted.rows) == 1:
            self._steps_since_probe = PROBE_STEPS
            return every, alone * (OTHERS_SHARE if wanted.others else OWN_SHARE)
        least = [few for rows in wanted.rows.values() if rows == few]
        self._steps_since_probe += 1
        if self._steps_since_probe > PROBE_STEPS:
            self._steps_since_probe = 0
            return sum(least), 0.0
        share = OTHERS_SHARE * (len(wanted.rows) - len(least)) * alone
        for_rows = share / 2 if wanted.prompts or wanted.lessons else share
        more = self._more_rows(every - sum(least), for_rows)
        left = OTHERS_SHARE * alone - (for_rows if more < every - sum(least) else a_row * more)
        return sum(least) + more, max(LEAST_SHARE * alone, left)

    def _more_rows(self, wanted: int, seconds: float) -> int:
        """Rows that may be drawn in this step so that they take ``seconds`` of every step, on average."""
        a_row = self._drawing.slope
        if a_row * wanted <= seconds:
            self._part_of_a_row = 0.0
            return wanted
        whole, self._part_of_a_row = divmod(self._part_of_a_row + seconds / a_row, 1.0)
        return int(whole)

    def _prompt_seconds(self, spent: Spent) -> float:
        """How long a step's prompts took; learns how long drawing takes where there are none."""
        if spent.rows and not spent.prompt_tokens:
            if not self._learned_last:
                self._drawing.add(spent.rows, spent.reading)
            return 0.0
        drawing = self._drawing.at(spent.rows) if spent.rows else 0.0
        return max(spent.reading - drawing, spent.reading / 10)

    def _hidden_seconds(self, spent: Spent) -> float:
        """How much of this step's drawing the lessons before it have answered for.

        Where steps are launched ahead, what is drawn next is computed while the lessons of a step are waited for.
        """
        if not (self._learned_last and spent.rows) or spent.prompt_tokens:
            return 0.0
        return max(0.0, self._drawing.at(spent.rows) - spent.reading)


class _Line:
    """Seconds as a straight line over rows, or lessons: least squares, of which each step forgets a little.

    slope: seconds of one more row; as it was last known while all steps have about as many.
    """

    def __init__(self) -> None:
        self._weight = self._rows = self._seconds = self._square = self._product = 0.0
        self.slope = 0.0
        self._knows_slope = False

    def add(self, rows: int, seconds: float) -> None:
        """So many rows took so long."""
        self._weight = FIT_MEMORY * self._weight + 1
        self._rows = FIT_MEMORY * self._rows + rows
        self._seconds = FIT_MEMORY * self._seconds + seconds
        self._square = FIT_MEMORY * self._square + rows * rows
        self._product = FIT_MEMORY * self._product + rows * seconds
        spread = self._square * self._weight - self._rows**2
        if spread > 0.01 * self._weight**2:
            self._knows_slope = True
            self.slope = max(0.0, (self._product * self._weight - self._rows * self._seconds) / spread)

    @property
    def known(self) -> bool:
        """Whether there was a step."""
        return self._weight > 0

    def at(self, rows: int) -> float:
        """Seconds of so many rows; 0 before the first step."""
        if not self.known:
            return 0.0
        mean = self._seconds / self._weight
        return max(mean / 10, mean + self.slope * (rows - self._rows / self._weight))

    def at_most(self, rows: int) -> float:
        """The same, and as if each took its part of it while fewer or more were never seen."""
        if self._knows_slope:
            return self.at(rows)
        return self._seconds / self._weight * max(1.0, rows * self._weight / self._rows)


def _smoothed(before: float, now: float) -> float:
    return RATE_MEMORY * before + (1 - RATE_MEMORY) * now
