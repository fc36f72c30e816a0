"""Short ways to call an engine, and to gather what it says."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from hope_serve.api import (
    AdaptOptions,
    AdaptRequest,
    Delta,
    Ended,
    GenerateRequest,
    MemoryChoice,
    Owner,
    SamplingParams,
    Started,
)

ANN = Owner(tenant="default", user="ann")
BOB = Owner(tenant="default", user="bob")


@dataclass
class Reply:
    """One choice of a generation."""

    version: int = 0
    session: str = ""
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    end: Ended | None = None


async def generate(engine, prompt, *, owner=None, memory=None, session_id="", deadline=float("inf"), **sampling):
    """The reply of a generation with one choice; greedy unless asked otherwise."""
    return (
        await generate_all(
            engine, prompt, owner=owner, memory=memory, session_id=session_id, deadline=deadline, **sampling
        )
    )[0]


async def generate_all(engine, prompt, *, owner=None, memory=None, session_id="", deadline=float("inf"), **sampling):
    options = {"temperature": 0.0, "max_tokens": 8, "ignore_eos": True} | sampling
    request = GenerateRequest(
        prompt=tuple(prompt),
        owner=owner,
        memory=memory or MemoryChoice(),
        session_id=session_id,
        deadline=deadline,
        sampling=SamplingParams(**options),
    )
    replies = [Reply() for _ in range(request.sampling.n)]
    async for event in engine.generate(request):
        match event:
            case Started():
                for reply in replies:
                    reply.version, reply.session = event.memory_version, event.session.value
            case Delta():
                reply = replies[event.choice]
                reply.text += event.text
                reply.tokens += event.token_ids
                reply.logprobs += event.logprobs
                reply.pieces.append(event.text)
            case Ended():
                replies[event.choice].end = event
    return replies


def adapt_request(tokens, *, owner=ANN, request_id="r1", expected_version=None, deadline=float("inf"), **options):
    digest = hashlib.sha256(repr((tuple(tokens), options, expected_version)).encode()).hexdigest()
    return AdaptRequest(
        owner=owner,
        request_id=request_id,
        tokens=tuple(tokens),
        payload_digest=digest,
        expected_version=expected_version,
        options=AdaptOptions(**options),
        deadline=deadline,
    )


async def adapt(engine, tokens, **options):
    return await engine.adapt(adapt_request(tokens, **options))


def ids(seed: int, count: int, vocab: int = 300) -> list[int]:
    """Reproducible ordinary token ids."""
    return [6 + (seed * 7919 + i * i * 31 + i * 17) % (vocab - 6) for i in range(count)]
