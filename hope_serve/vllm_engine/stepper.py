"""One step of vLLM: start whom the scheduler lets in, compute, reply; and what becomes of a sequence at its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Any

from torch import Tensor

from hope_serve.api import FinishReason, TokenLogprob
from hope_serve.api.engine import EngineFault, Purpose
from hope_serve.engine.meter import Meter
from hope_serve.engine.scheduler import Piece, Plan, Scheduler
from hope_serve.engine.sequence import History, Sequence
from hope_serve.engine.slots import SlotTable
from hope_serve.engine.stepper import tell
from hope_serve.errors import DeadlineExceeded, HopeError
from hope_serve.vllm_engine import sampling
from hope_serve.vllm_engine.model import VllmModel
from hope_serve.vllm_plugin.handover import Handover


class WorkerLost(RuntimeError):
    """Every card has a part of every layer, so that none goes on without the others."""


class VllmStepper:
    """Takes the scheduler's sequences through vLLM, which decides what each step computes of them.

    A sequence is given to vLLM when it starts and not before, so that it waits in this project's queue, where users
    take turns. A fault of vLLM's own step ends the loop: its state is not known any more.
    """

    def __init__(self, scheduler: Scheduler, meter: Meter, vllm: Any, model: VllmModel, num_slots: int) -> None:
        self._scheduler, self._meter, self._vllm, self._model = scheduler, meter, vllm, model
        self._table = SlotTable(num_slots)
        self._numbers = count()
        self._running: dict[str, Sequence] = {}
        self._names: dict[Sequence, str] = {}
        self._ends: dict[Sequence, FinishReason] = {}
        meter.watch(self._table)

    def step(self) -> None:
        """Compute what is next for everybody, if anything is.

        Raises:
            WorkerLost: one of several cards' workers has ended, which nobody would hear of before the next request.
        """
        if getattr(self._vllm.engine_core.engine_core.model_executor, "is_failed", False):
            raise WorkerLost("one of vLLM's workers has ended; its own lines above say why")
        self._drop_expired(time.monotonic())
        for sequence in self._scheduler.start(self._table.num_free):
            self._start(sequence)
        if self._running or self._ends:
            self._run()
        self._meter.show()

    def close(self) -> None:
        """Let go of the device."""
        self._vllm.engine_core.shutdown()

    def _start(self, sequence: Sequence) -> None:
        """Give a sequence and its forks to vLLM; each reads the prompt for itself."""
        forks, sequence.forks = sequence.forks, []
        self._scheduler.running += forks
        for holder in (sequence, *forks):
            holder.started_at = time.monotonic()
            holder.slot, _ = self._table.take(holder, None)
            try:
                self._give(holder)
            except ValueError as error:  # vLLM's refusal of this request
                self._fail(holder, error)

    def _give(self, sequence: Sequence) -> None:
        handover = Handover(
            loads=self._model.loads(sequence.start.memory, sequence.start.state),
            saved=self._keeper(sequence) if sequence.keeps_state and not self._model.rereads else None,
        )
        weighs = sequence.purpose is Purpose.SCORE
        prompt = [*sequence.tokens, *sequence.targets[-1:]] if weighs else sequence.tokens
        asked = sampling.weighing(handover) if weighs else sampling.drawing(sequence, handover)
        name = str(next(self._numbers))
        self._vllm.add_request(name, {"prompt_token_ids": list(prompt)}, asked)
        self._running[name], self._names[sequence] = sequence, name

    def _keeper(self, sequence: Sequence) -> Callable[[tuple[Tensor, ...]], None]:
        def keep(kept: tuple[Tensor, ...]) -> None:
            if sequence in self._ends:
                sequence.final_state = self._model.state_row(kept)
                self._leave(sequence, reason=self._ends.pop(sequence))

        return keep

    def _run(self) -> None:
        began = time.monotonic()
        outputs = self._vllm.step()
        num_tokens = sum(self._reply(output) for output in outputs)
        if num_tokens:
            self._meter.observe(num_tokens, time.monotonic() - began)

    def _reply(self, output: Any) -> int:
        """Tell a sequence of its tokens; returns how many were computed of it since it was heard of last."""
        sequence = self._running.get(output.request_id)
        if sequence is None or not output.outputs:
            return 0
        num_tokens = self._has_read(sequence)
        try:
            if sequence.purpose is Purpose.SCORE:
                sampling.weighed(sequence, output.prompt_logprobs)
                self._finish(sequence)
                return num_tokens
            for token in sampling.drawn(sequence, output.outputs[0]):
                num_tokens += 1
                self._extend(sequence, token)
        except Exception as error:  # noqa: BLE001  a fault ends whose it is, not everybody
            self._fail(sequence, error)
        if output.finished and sequence in self._names:
            self._finish(sequence, reason=FinishReason.LENGTH)
        return num_tokens

    def _has_read(self, sequence: Sequence) -> int:
        """Note that a prompt was read, once; returns its tokens."""
        if sequence.prefilled_at:
            return 0
        sequence.prefilled_at = time.monotonic()
        self._meter.read(sequence, sequence.num_prompt)
        plan = Plan(pieces=[Piece(sequence, sequence.num_prompt)])
        seconds = sequence.prefilled_at - sequence.started_at
        self._scheduler.measured(plan, reading=seconds, learning=0.0, num_lessons=0)
        sequence.num_fed = sequence.num_prompt
        return sequence.num_prompt

    def _extend(self, sequence: Sequence, drawn: TokenLogprob) -> None:
        """Add a token, and see whether the sequence ends with it."""
        if sequence not in self._names or sequence in self._ends:
            return
        sequence.num_fed = len(sequence.tokens)
        sequence.drawn.append(drawn)
        sequence.tokens.append(drawn.token)
        self._meter.wrote(1)
        if sequence.listener.on_token(sequence, drawn) or drawn.token in sequence.end_ids:
            self._finish(sequence, reason=FinishReason.STOP)
        elif len(sequence.drawn) >= sequence.sampling.max_tokens:
            self._finish(sequence, reason=FinishReason.LENGTH)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        if not isinstance(error, HopeError):
            fault = EngineFault(f"{sequence.purpose.value} failed")
            fault.__cause__ = error
            error = fault
        self._finish(sequence, error=error)

    def _finish(
        self, sequence: Sequence, *, reason: FinishReason | None = None, error: Exception | None = None
    ) -> None:
        """Take a sequence from vLLM; it has left at once, or when its state has been handed back."""
        if sequence.done or (sequence in self._ends and error is None and not sequence.cancelled):
            return
        self._ends.pop(sequence, None)
        if name := self._names.pop(sequence, ""):
            del self._running[name]
            self._vllm.abort_request([name])  # one that has ended of itself is not there any more
        if sequence.keeps_state and reason and not sequence.cancelled:
            if not self._model.rereads:
                self._ends[sequence] = reason
                return
            sequence.final_state = History(tokens=tuple(sequence.tokens))
        self._leave(sequence, reason=reason, error=error)

    def _leave(self, sequence: Sequence, *, reason: FinishReason | None = None, error: Exception | None = None) -> None:
        self._scheduler.remove(sequence)
        for holder in (sequence, *sequence.forks):
            if holder.slot:
                self._table.release(holder.slot, holder)
                holder.slot = 0
            holder.done = True
        tell(sequence, reason=reason, error=error)

    def _drop_expired(self, now: float) -> None:
        for sequence in self._scheduler.expired(now):
            error = None if sequence.cancelled else DeadlineExceeded("the deadline passed before the work was done")
            self._finish(sequence, error=error)
