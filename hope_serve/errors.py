"""Everything that can be refused, and why.

HopeError
├── InvalidRequest            a field's value is not allowed
├── NotFound                  no such memory, version or session
├── VersionConflict           the memory moved on from the version named
├── FailedPrecondition        the state forbids it: other model or schema, erased, update refused
├── RequestIdReused           the id was used with another payload
├── Exhausted                 queue, quota or storage is full; later it may not be
├── DeadlineExceeded          it cannot, or could not, finish in time
├── Unavailable               draining, store down, or outcome unknown: retry with the same request id
├── CorruptMemory             stored bytes are not what was sealed
├── Unauthenticated
└── PermissionDenied
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class HopeError(Exception):
    """A refusal that a client may read.

    Args:
        message: what is wrong, with the field, the value, the limit and the remedy where there are any.
        reason: UPPER_SNAKE_CASE, stable, for programs.
        details: further facts for programs, text to text.
    """

    default_reason = "INTERNAL"

    def __init__(self, message: str, *, reason: str = "", details: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason = reason or self.default_reason
        self.details = dict(details or {})


class InvalidRequest(HopeError):
    """A field holds what it must not.

    Args:
        field: path of the field, as the caller spells it.
        message: the value, the limit and the remedy.
    """

    default_reason = "INVALID_FIELD"

    def __init__(self, field: str, message: str, *, reason: str = "") -> None:
        super().__init__(f"{field}: {message}", reason=reason, details={"field": field})
        self.field = field
        self.description = message


@contextmanager
def within(place: str) -> Iterator[None]:
    """A field that is refused inside is named by its whole path: ``place.field``."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(f"{place}.{error.field}", error.description, reason=error.reason) from error


class NotFound(HopeError):
    """No such memory, version or session."""

    default_reason = "NOT_FOUND"


class VersionConflict(HopeError):
    """The memory is not at the version the caller expected."""

    default_reason = "VERSION_CONFLICT"

    def __init__(self, message: str, *, head: int, reason: str = "") -> None:
        super().__init__(message, reason=reason, details={"head_version": str(head)})
        self.head = head


class FailedPrecondition(HopeError):
    """The stored state, not the request, forbids it."""

    default_reason = "FAILED_PRECONDITION"


class RequestIdReused(HopeError):
    """A request id came back with another payload."""

    default_reason = "REQUEST_ID_REUSED"


class Exhausted(HopeError):
    """A bounded resource is full.

    Args:
        retry_after: seconds after which a retry is sensible.
    """

    default_reason = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, *, retry_after: float = 1.0, reason: str = "") -> None:
        super().__init__(message, reason=reason)
        self.retry_after = retry_after


class DeadlineExceeded(HopeError):
    """The deadline passed, or the estimate says it would."""

    default_reason = "DEADLINE_EXCEEDED"


class Unavailable(HopeError):
    """Not now; a retry with the same request id is safe."""

    default_reason = "UNAVAILABLE"


class CorruptMemory(HopeError):
    """Stored bytes failed their seal; they are neither served nor overwritten."""

    default_reason = "CORRUPT_MEMORY"


class Unauthenticated(HopeError):
    """No valid credential."""

    default_reason = "UNAUTHENTICATED"


class PermissionDenied(HopeError):
    """The credential does not allow it."""

    default_reason = "PERMISSION_DENIED"
