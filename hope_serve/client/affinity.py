"""Which pod a user's calls go to: what a proxy hashes, so that a memory stays warm on one pod.

Not the user's id: proxies log headers, header values are ASCII and ids are not. Sixteen bits of a digest spread users
evenly over any fleet, and thousands of users of a large service share each value, so that it names nobody.
"""

from __future__ import annotations

from hashlib import sha256

from google.protobuf.message import Message as Pb

AFFINITY_KEY = "x-hope-user"
HEX_DIGITS = 4


def affinity_of(request: Pb) -> tuple[tuple[str, str], ...]:
    """The metadata that keeps the calls of ``request.user_id`` together; none for a call of no user."""
    user_id: str = getattr(request, "user_id", "")
    if not user_id:
        return ()
    return ((AFFINITY_KEY, sha256(user_id.encode()).hexdigest()[:HEX_DIGITS]),)
