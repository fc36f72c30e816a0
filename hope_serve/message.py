"""A turn of a conversation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation. ``role``: user, assistant or system."""

    role: str
    text: str
