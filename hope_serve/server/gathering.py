"""A stream of events, gathered into one answer."""

from __future__ import annotations

from collections import defaultdict

from hope_serve.api import Choice, Delta, Ended, GenerateEvent, Generation, Started


class Gathering:
    """Collects events until every choice has ended."""

    def __init__(self) -> None:
        self._started: Started | None = None
        self._deltas: defaultdict[int, list[Delta]] = defaultdict(list)
        self._ended: dict[int, Ended] = {}

    def add(self, event: GenerateEvent) -> None:
        """Take the next event."""
        match event:
            case Started():
                self._started = event
            case Delta():
                self._deltas[event.choice].append(event)
            case Ended():
                self._ended[event.choice] = event

    def generation(self) -> Generation:
        """Everything, choices by index."""
        assert self._started is not None, "a generation begins with Started"
        return Generation(started=self._started, choices=tuple(self._choice(i) for i in sorted(self._ended)))

    def _choice(self, index: int) -> Choice:
        deltas = self._deltas[index]
        return Choice(
            text="".join(delta.text for delta in deltas),
            token_ids=tuple(token for delta in deltas for token in delta.token_ids),
            logprobs=tuple(token for delta in deltas for token in delta.logprobs),
            ended=self._ended[index],
        )
