"""Memory beside retrieval: the same facts learned, put into the prompt, and found by BM25; one table of all.

Facts are told and asked in the wording that hope-demo was trained on; `hope-serve eval recall` has the hard cases.
"""

from __future__ import annotations

import asyncio

from served import options, served

from hope_serve.client import AsyncHopeClient
from hope_serve.evals.arms import ARMS
from hope_serve.evals.exam import Exam
from hope_serve.evals.progress import Bars
from hope_serve.evals.report import Report
from hope_serve.evals.show import print_report
from hope_serve.evals.subject import Subject
from hope_serve.evals.suite import on_what
from hope_serve.training.lessons.cases import Case, Row
from hope_serve.training.lessons.judge import holds_value
from hope_serve.training.lessons.lesson import Adapt, Question
from hope_serve.training.personas import PersonaFactory, Split

FACTS = (4, 8)


def rows(people: int, seed: int) -> list[Row]:
    """Invented people who tell some facts each, and are asked for all of them."""
    factory = PersonaFactory(Split.HELD_OUT, seed=seed)
    made = []
    for count in FACTS:
        told = [factory.facts(count) for _ in range(people)]
        cases = tuple(
            Case(
                adapts=(Adapt(text=factory.monologue(facts)),),
                asked=tuple(Question(fact.question, fact.answer, (fact.value,)) for fact in facts),
            )
            for facts in told
        )
        made.append(Row(name=f"{count} facts told at once", cases=cases, judge=holds_value))
    return made


async def play(target: str, *, people: int = 8, seed: int = 1) -> Report:
    """Teach, ask by every arm, print, and forget everybody."""
    async with AsyncHopeClient(target) as client:
        with Bars() as bars:
            subject = Subject(client, await client.get_model(), bars)
            exam, asked = Exam(subject, ARMS), rows(people, seed)
            right = await exam.table("Memory beside retrieval", asked)
            costs = await exam.costs("What a query costs, alone", asked, times=4)
            report = Report(suite="retrieval", model=on_what(subject), settings={}, tables=(right, costs))
            await subject.forget()
    print_report(report)
    return report


if __name__ == "__main__":
    given = options(str(__doc__)).parse_args()
    with served(given.target, given.checkpoint) as address:
        asyncio.run(play(address))
