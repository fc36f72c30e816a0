"""The text of one Generate call: ids from the engine become characters, and stop strings end them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from hope_serve.api import Delta, Ended, GenerateEvent, GenerateRequest, Usage
from hope_serve.api.engine import Carried, ChoiceEnded, Engine, Events, GenerateTask, TokenDrawn
from hope_serve.service.text_stream import Piece, TextStream
from hope_serve.tokenizer import Vocabulary


class Generation:
    """The choices of one request, running.

    Args:
        memory: what every choice reads.
        carried: what every choice begins with.
        keeps_state: what the one choice carries on is wanted, for a conversation; see ``carried`` at its end.
    """

    def __init__(
        self,
        request: GenerateRequest,
        engine: Engine[Any, Any, Any],
        tokenizer: Vocabulary,
        *,
        memory: Any = None,
        carried: Carried[Any] | None = None,
        keeps_state: bool = False,
    ) -> None:
        sampling = request.sampling
        self._engine, self._logprobs = engine, sampling.logprobs is not None
        self._texts = _texts(request, tokenizer)
        self._task = GenerateTask(
            prompt=request.prompt,
            sampling=sampling,
            end_ids=frozenset(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else tokenizer.ends),
            memory=memory,
            carried=carried,
            keeps_state=keeps_state,
            ends_text=tuple(map(_watcher, _texts(request, tokenizer))) if sampling.stop else None,
            priority=request.priority,
            deadline=request.deadline,
            owner=request.owner,
            payer=request.payer,
        )
        self.carried: Carried[Any] | None = None

    async def events(self) -> AsyncGenerator[GenerateEvent]:
        """Every choice's events until all have ended. Leaving early cancels the sequences within a step."""
        async with aclosing(self._engine.generate(self._task)) as events:
            async for came in events:
                for event in self._said(came):
                    yield event

    def _said(self, came: Events[Any]) -> list[GenerateEvent]:
        """Events as the caller hears them: what one choice has drawn meanwhile is one delta.

        Whoever takes tokens more slowly than they are drawn gets more of them at a time, and costs no more for each.
        """
        said: list[GenerateEvent] = []
        drawn: dict[int, list[TokenDrawn]] = {}
        for event in came:
            if isinstance(event, TokenDrawn):
                if not event.is_end:
                    drawn.setdefault(event.choice, []).append(event)
                continue
            text = self._texts[event.choice]
            pieces = [text.push(drawn.pop(event.choice, ()))]
            pieces += [] if text.matched_stop else [text.finish()]
            self.carried = event.carried
            said += [*self._delta(event.choice, pieces), _ended(event, text.matched_stop)]
        for choice, tokens in drawn.items():
            said += self._delta(choice, [self._texts[choice].push(tokens)])
        return said

    def _delta(self, choice: int, pieces: list[Piece]) -> list[Delta]:
        text = "".join(piece.text for piece in pieces)
        tokens = tuple(token for piece in pieces for token in piece.tokens)
        if not text and not tokens:
            return []
        ids = tuple(token.token for token in tokens)
        logprobs = tuple(token.logprob for token in tokens if token.logprob) if self._logprobs else ()
        return [Delta(choice=choice, text=text, token_ids=ids, logprobs=logprobs)]


def _texts(request: GenerateRequest, tokenizer: Vocabulary) -> list[TextStream]:
    sampling = request.sampling
    return [TextStream(tokenizer, sampling.stop, min_tokens=sampling.min_tokens) for _ in range(sampling.n)]


def _watcher(text: TextStream) -> Callable[[int], bool]:
    """Whether a token completes a stop string; it reads on its own, since it is asked on another thread."""

    def ends(token: int) -> bool:
        text.push([TokenDrawn(choice=0, token=token)])
        return bool(text.matched_stop)

    return ends


def _ended(event: ChoiceEnded[Any], matched_stop: str) -> Ended:
    return Ended(
        choice=event.choice,
        finish_reason=event.reason,
        matched_stop=matched_stop,
        usage=Usage(prompt_tokens=event.num_prompt, completion_tokens=event.num_drawn, reread_tokens=event.num_reread),
        timings=event.timings,
    )
