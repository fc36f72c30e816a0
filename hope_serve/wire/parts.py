"""The parts of a history: their messages, and the digest by which two histories are the same."""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from hope_serve.api import AdaptOptions, AdaptStreamResult, Source
from hope_serve.message import Message
from hope_serve.pb.hope.v1 import adaptation_pb2
from hope_serve.wire.adaptation import (
    read_adapted,
    read_options,
    read_source,
    write_adapted,
    write_options,
    write_source,
)
from hope_serve.wire.content import Content, is_messages, read_content, write_content
from hope_serve.wire.plain import read_plain, write_plain

TEXT, TOKEN_IDS, MESSAGES = 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class AdaptStartCall:
    """What a history's first message says."""

    user_id: str
    request_id: str
    expected_version: int | None = None
    options: AdaptOptions = field(default_factory=AdaptOptions)
    source: Source = field(default_factory=Source)
    payload_digest: str = ""


class PartsDigest:
    """sha256 of the parts so far, as AdaptStart.payload_digest describes it."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, part: Content) -> str:
        """Take one more part in; the digest of all so far, in hexadecimal.

        Raises:
            ValueError: a text is no Unicode text, or an id does not fit four bytes.
        """
        kind, items = _items(part)
        self._hash.update(bytes([kind]) + len(items).to_bytes(4, "little"))
        for item in items:
            self._hash.update(len(item).to_bytes(8, "little"))
            self._hash.update(item)
        return self._hash.hexdigest()


def parts_digest(parts: Iterable[Content]) -> str:
    """The payload digest of a history. Raises ValueError as ``PartsDigest.add``."""
    digest, found = PartsDigest(), ""
    for part in parts:
        found = digest.add(part)
    return found


def write_start(call: AdaptStartCall) -> adaptation_pb2.AdaptStreamRequest:
    """The first message."""
    start = adaptation_pb2.AdaptStart(options=write_options(call.options), source=write_source(call.source))
    return adaptation_pb2.AdaptStreamRequest(start=write_plain(start, call))


def read_start(message: adaptation_pb2.AdaptStart) -> AdaptStartCall:
    """What the first message says; raises InvalidRequest."""
    options, source = read_options(message.options), read_source(message.source)
    return AdaptStartCall(options=options, source=source, **read_plain(message))


def write_part(content: Content) -> adaptation_pb2.AdaptStreamRequest:
    """A part's message."""
    return adaptation_pb2.AdaptStreamRequest(part=adaptation_pb2.AdaptPart(**write_content(content)))


def read_part(message: adaptation_pb2.AdaptPart) -> Content:
    """What a part holds; raises InvalidRequest."""
    return read_content(message, "input")


def write_end(num_parts: int) -> adaptation_pb2.AdaptStreamRequest:
    """The last message."""
    return adaptation_pb2.AdaptStreamRequest(end=adaptation_pb2.AdaptEnd(num_parts=num_parts))


def write_streamed(done: AdaptStreamResult) -> adaptation_pb2.AdaptStreamResponse:
    """The reply's message."""
    return write_plain(adaptation_pb2.AdaptStreamResponse(result=write_adapted(done.result)), done)


def read_streamed(message: adaptation_pb2.AdaptStreamResponse) -> AdaptStreamResult:
    """The reply."""
    return AdaptStreamResult(result=read_adapted(message.result), **read_plain(message))


def _items(part: Content) -> tuple[int, list[bytes]]:
    if isinstance(part, str):
        return TEXT, [part.encode()]
    if is_messages(part):
        return MESSAGES, list(_turns(part))
    try:
        ids = array("i", cast("Sequence[int]", part))
    except OverflowError as error:
        raise ValueError(f"a token id does not fit 32 bits: {error}") from error
    if sys.byteorder == "big":
        ids.byteswap()
    return TOKEN_IDS, [ids.tobytes()]


def _turns(messages: Iterable[Message]) -> Iterator[bytes]:
    for message in messages:
        yield message.role.encode()
        yield message.text.encode()
