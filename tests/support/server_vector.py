"""One bad call, and the messages that bad calls are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from grpc import StatusCode

from hope_serve.pb.hope.v1 import content_pb2, inference_pb2

LIMIT = 64
"""Of the prompt and of what is to be learned, in tokens, on the server of these tests."""
VOCAB = 382
BAD = StatusCode.INVALID_ARGUMENT
MISSING = StatusCode.NOT_FOUND


@dataclass(frozen=True)
class Vector:
    """One bad call. ``words``: field, value and limit, as the status message must name them."""

    name: str
    method: str
    raw: bytes
    code: StatusCode
    words: tuple[str, ...]


def ids(*values: int) -> Any:
    return content_pb2.TokenIds(ids=values)


def turns(*pairs: tuple[int, str]) -> Any:
    return content_pb2.Messages(messages=[content_pb2.Message(role=role, text=text) for role, text in pairs])


def generate(**fields: Any) -> bytes:
    named = {"text": "tea"} if not fields.keys() & {"text", "token_ids", "messages", "nothing"} else {}
    fields.pop("nothing", None)
    return inference_pb2.GenerateRequest(**named, **fields).SerializeToString()
