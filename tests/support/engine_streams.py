"""Histories given to a service part by part."""

from __future__ import annotations

import hashlib
import math

from support.engine_calls import ANN, ids

from hope_serve.api import AdaptOptions, AdaptStreamRequest, StreamedPart

PARTS = (ids(1, 41), ids(2, 23), ids(3, 30))


class BrokenStream(Exception):
    """The client is gone."""


async def streamed(parts, *, after=None, breaks=False):
    """The parts with their running digests; ``after`` is awaited with the number of each part before the next."""
    digest = hashlib.sha256()
    for number, tokens in enumerate(parts):
        digest.update(repr(tokens).encode())
        yield StreamedPart(tokens=tuple(tokens), digest=digest.hexdigest())
        if after:
            await after(number)
    if breaks:
        raise BrokenStream


def digest_of(parts):
    """Of all of them."""
    return hashlib.sha256("".join(repr(tokens) for tokens in parts).encode()).hexdigest()


async def stream(
    engine, parts=PARTS, *, owner=ANN, request_id="s", declared="", expected_version=None, deadline=math.inf,
    after=None, breaks=False, **options,
):  # fmt: skip
    """The reply to a stream; ANN learns unless somebody else is named."""
    request = AdaptStreamRequest(
        owner=owner, request_id=request_id, declared_digest=declared, expected_version=expected_version,
        deadline=deadline, options=AdaptOptions(**options),
    )  # fmt: skip
    return await engine.adapt_stream(request, streamed(parts, after=after, breaks=breaks))
