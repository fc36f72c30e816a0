"""What a memory learns from a generation: the user's last turns, with or without the answer."""

from __future__ import annotations

from itertools import takewhile
from typing import Self

from hope_serve.api import AdaptOptions, AdaptRequest, Delta, Ended, GenerateEvent, Learn, Message, Source
from hope_serve.identity import Scope
from hope_serve.server.learner import Learner
from hope_serve.server.owners import current_caller, owner_of
from hope_serve.server.prompts import Ids, Prompts, payload_digest
from hope_serve.server.workers import Workers
from hope_serve.wire.calls import GenerateCall
from hope_serve.wire.content import is_messages


class Exchange:
    """One generation, from its prompt to its last event; does nothing unless the call asks to ``learn``.

    A place with the learner is kept from the start, so that nothing is answered and then not learned for want of room.
    """

    def __init__(self, call: GenerateCall, prompts: Prompts, learner: Learner, workers: Workers) -> None:
        self._call = call
        self._prompts = prompts
        self._workers = workers
        self._learner = learner
        self._tokens: Ids = ()
        self._answer: list[str] = []
        self._num_open = call.sampling.n
        self._holds_place = False

    async def __aenter__(self) -> Self:
        """Raises InvalidRequest for turns too long to learn, Exhausted when there is no room, PermissionDenied."""
        if self._call.learn is not None:
            current_caller().require(Scope.ADAPT)
            whole = self._call.learn is Learn.WHOLE_EXCHANGE
            reserved = self._call.sampling.max_tokens + 2 if whole else 0  # the answer, opened and closed
            turns = _last_turns(self._call)
            self._tokens = await self._workers.run(_size(turns), lambda: self._prompts.lesson(turns, reserved=reserved))
            self._learner.reserve(self._call.user_id)
            self._holds_place = True
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._holds_place:
            self._learner.release()

    async def note(self, event: GenerateEvent) -> None:
        """Take the next event, before it is sent: the last one starts the learning, and its reader may hang up."""
        if isinstance(event, Delta):
            self._answer.append(event.text)
        elif isinstance(event, Ended):
            self._num_open -= 1
            if self._holds_place and self._num_open == 0:
                size = len(self._tokens) + sum(map(len, self._answer))
                request = await self._workers.run(size, self._request)
                self._holds_place = False
                self._learner.start(request)

    def _request(self) -> AdaptRequest:
        tokens = self._tokens
        if self._call.learn is Learn.WHOLE_EXCHANGE:
            answer = Message(role="assistant", text="".join(self._answer))
            tokens = self._prompts.lesson([*_last_turns(self._call), answer])
        return AdaptRequest(
            owner=owner_of(self._call.user_id),
            request_id=self._call.learn_request_id,
            tokens=tokens,
            payload_digest=payload_digest(tokens, AdaptOptions(), None),
            source=Source(id=self._call.request_id),
        )


def _size(turns: list[Message]) -> int:
    return sum(len(message.text) for message in turns)


def _last_turns(call: GenerateCall) -> list[Message]:
    """The user's turns since the assistant last spoke: earlier ones were an earlier exchange's to teach."""
    assert is_messages(call.prompt), "GenerateCall checks it"
    since = takewhile(lambda message: message.role != "assistant", reversed(call.prompt))
    return [message for message in since if message.role == "user"][::-1]
