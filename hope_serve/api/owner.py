"""Whose memory."""

from __future__ import annotations

from dataclasses import dataclass

from hope_serve.api.limits import check_name

MAX_USER_ID = 256


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whose memory: a user inside a tenant."""

    tenant: str
    user: str

    def __post_init__(self) -> None:
        check_name("user_id", self.user, MAX_USER_ID)
