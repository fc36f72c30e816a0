"""Generate and GenerateStream: requests, events and finished generations."""

from __future__ import annotations

from hope_serve.api import (
    Choice,
    Delta,
    Ended,
    FinishReason,
    GenerateEvent,
    Generation,
    MemoryChoice,
    OnMissing,
    SamplingParams,
    SessionOutcome,
    Started,
    Timings,
    TokenLogprob,
    Usage,
)
from hope_serve.pb.hope.v1 import content_pb2, inference_pb2
from hope_serve.wire.calls import GenerateCall
from hope_serve.wire.content import read_content, write_content
from hope_serve.wire.enums import FINISH_REASON, LEARN, ON_MISSING, SESSION_OUTCOME
from hope_serve.wire.plain import read_plain, write_plain


def write_generate(call: GenerateCall) -> inference_pb2.GenerateRequest:
    """The request's message."""
    message = inference_pb2.GenerateRequest(
        sampling=write_plain(inference_pb2.SamplingParams(), call.sampling),
        memory=write_memory_choice(call.memory),
        learn=LEARN.write(call.learn),
        **write_content(call.prompt),
    )
    return write_plain(message, call)


def read_generate(message: inference_pb2.GenerateRequest) -> GenerateCall:
    """The request; raises InvalidRequest."""
    return GenerateCall(
        prompt=read_content(message, "prompt"),
        sampling=SamplingParams(**read_plain(message.sampling)),
        memory=read_memory_choice(message.memory),
        learn=LEARN.read(message.learn, "learn"),
        **read_plain(message),
    )


def write_memory_choice(choice: MemoryChoice) -> inference_pb2.MemoryChoice:
    """Which version is read."""
    return write_plain(inference_pb2.MemoryChoice(on_missing=ON_MISSING.write(choice.on_missing)), choice)


def read_memory_choice(message: inference_pb2.MemoryChoice) -> MemoryChoice:
    """Which version is read; raises InvalidRequest."""
    on_missing = ON_MISSING.read(message.on_missing, "memory.on_missing") or OnMissing.BASE
    return MemoryChoice(on_missing=on_missing, **read_plain(message))


def write_event(event: GenerateEvent) -> inference_pb2.GenerateStreamResponse:
    """One message of the stream. Spelled out, not looped over: it is made once a token."""
    match event:
        case Delta():
            delta = inference_pb2.Delta(
                choice=event.choice,
                text=event.text,
                token_ids=event.token_ids,
                logprobs=[_write_logprob(token) for token in event.logprobs],
            )
            return inference_pb2.GenerateStreamResponse(delta=delta)
        case Started():
            started = inference_pb2.Started(session=SESSION_OUTCOME.write(event.session))
            return inference_pb2.GenerateStreamResponse(started=write_plain(started, event))
        case Ended():
            ended = inference_pb2.Ended(
                finish_reason=FINISH_REASON.write(event.finish_reason),
                usage=write_plain(content_pb2.Usage(), event.usage),
                timings=write_plain(content_pb2.Timings(), event.timings),
            )
            return inference_pb2.GenerateStreamResponse(ended=write_plain(ended, event))


def read_event(message: inference_pb2.GenerateStreamResponse) -> GenerateEvent:
    """One event of the stream."""
    if message.HasField("delta"):
        delta = message.delta
        return Delta(
            choice=delta.choice,
            text=delta.text,
            token_ids=tuple(delta.token_ids),
            logprobs=tuple(_read_logprob(token) for token in delta.logprobs),
        )
    if message.HasField("started"):
        return _read_started(message.started)
    return _read_ended(message.ended, message.ended.choice)


def write_generation(generation: Generation) -> inference_pb2.GenerateResponse:
    """The finished generation's message."""
    started = generation.started
    choices = [_write_choice(choice) for choice in generation.choices]
    message = inference_pb2.GenerateResponse(choices=choices, session=SESSION_OUTCOME.write(started.session))
    return write_plain(message, started)


def read_generation(message: inference_pb2.GenerateResponse) -> Generation:
    """The finished generation."""
    return Generation(started=_read_started(message), choices=tuple(_read_choice(choice) for choice in message.choices))


def _write_choice(choice: Choice) -> inference_pb2.Choice:
    ended = choice.ended
    return inference_pb2.Choice(
        index=ended.choice,
        text=choice.text,
        token_ids=choice.token_ids,
        logprobs=[_write_logprob(token) for token in choice.logprobs],
        finish_reason=FINISH_REASON.write(ended.finish_reason),
        matched_stop=ended.matched_stop,
        usage=write_plain(content_pb2.Usage(), ended.usage),
        timings=write_plain(content_pb2.Timings(), ended.timings),
    )


def _read_choice(message: inference_pb2.Choice) -> Choice:
    return Choice(
        text=message.text,
        token_ids=tuple(message.token_ids),
        logprobs=tuple(_read_logprob(token) for token in message.logprobs),
        ended=_read_ended(message, message.index),
    )


def _read_started(message: inference_pb2.Started | inference_pb2.GenerateResponse) -> Started:
    session = SESSION_OUTCOME.read(message.session, "session") or SessionOutcome.NONE
    return Started(memory_version=message.memory_version, request_id=message.request_id, session=session)


def _read_ended(message: inference_pb2.Ended | inference_pb2.Choice, choice: int) -> Ended:
    return Ended(
        choice=choice,
        finish_reason=FINISH_REASON.read(message.finish_reason, "finish_reason") or FinishReason.STOP,
        matched_stop=message.matched_stop,
        usage=Usage(**read_plain(message.usage)),
        timings=Timings(**read_plain(message.timings)),
    )


def _write_logprob(token: TokenLogprob) -> inference_pb2.TokenLogprob:
    top = [inference_pb2.Alternative(token=other, logprob=logprob) for other, logprob in token.top]
    return inference_pb2.TokenLogprob(token=token.token, logprob=token.logprob, top=top)


def _read_logprob(message: inference_pb2.TokenLogprob) -> TokenLogprob:
    top = tuple((other.token, other.logprob) for other in message.top)
    return TokenLogprob(token=message.token, logprob=message.logprob, top=top)
