"""Closed sets: ``Learn.USER_TURNS`` here is ``LEARN_USER_TURNS`` there."""

from __future__ import annotations

import enum
from typing import Any, Generic, TypeVar

from hope_serve.api import AdaptMode, Durability, FinishReason, Learn, OnMissing, SessionOutcome
from hope_serve.errors import InvalidRequest
from hope_serve.pb.hope.v1 import adaptation_pb2, content_pb2, inference_pb2, memory_pb2

E = TypeVar("E", bound=enum.Enum)


class Role(enum.Enum):
    """Who speaks a turn; the values are the tokenizer's names."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class VersionKind(enum.Enum):
    """How a version came to be; the values are the store's names."""

    ADAPT = "adapt"
    ROLLBACK = "rollback"
    FORK = "fork"
    IMPORT = "import"


class EnumCodec(Generic[E]):
    """One enum, both ways; the wire's UNSPECIFIED is None."""

    def __init__(self, kind: type[E], wrapper: Any) -> None:
        prefix = wrapper.Name(0).removesuffix("UNSPECIFIED")
        self._numbers: dict[E | None, int] = {None: 0}
        self._numbers |= {member: wrapper.Value(prefix + member.name) for member in kind}
        self._members = {number: member for member, number in self._numbers.items()}

    def write(self, member: E | None) -> Any:
        """The wire's number."""
        return self._numbers[member]

    def read(self, number: int, field: str) -> E | None:
        """The member, or None for UNSPECIFIED.

        Raises:
            InvalidRequest: a number that this release does not know.
        """
        if number not in self._members:
            known = ", ".join(str(n) for n in sorted(self._members))
            raise InvalidRequest(field, f"{number} is not a value of this enum; choose one of {known}")
        return self._members[number]


ROLE = EnumCodec(Role, content_pb2.Role)
ON_MISSING = EnumCodec(OnMissing, inference_pb2.OnMissing)
LEARN = EnumCodec(Learn, inference_pb2.Learn)
FINISH_REASON = EnumCodec(FinishReason, inference_pb2.FinishReason)
SESSION_OUTCOME = EnumCodec(SessionOutcome, inference_pb2.SessionOutcome)
ADAPT_MODE = EnumCodec(AdaptMode, adaptation_pb2.AdaptMode)
DURABILITY = EnumCodec(Durability, adaptation_pb2.Durability)
VERSION_KIND = EnumCodec(VersionKind, memory_pb2.VersionKind)
