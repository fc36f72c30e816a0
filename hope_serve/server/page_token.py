"""Tokens of pages: the store's cursor with a checksum over it and the tenant.

One that was made up, cut, or written for another tenant is no silent other page.
"""

from __future__ import annotations

import zlib

from hope_serve.errors import InvalidRequest

MAX_TOKEN_CHARS = 1024


def write_page_token(cursor: str, tenant: str) -> str:
    """The token of the tenant's page after ``cursor``; "" when there is none."""
    return f"{_checksum(cursor, tenant)}.{cursor}" if cursor else ""


def read_page_token(token: str, tenant: str) -> str:
    """The cursor; "" for the first page.

    Raises:
        InvalidRequest: no server wrote this token for this tenant.
    """
    checksum, _, cursor = token.partition(".")
    if len(token) > MAX_TOKEN_CHARS or (token and checksum != _checksum(cursor, tenant)):
        raise InvalidRequest(
            "page_token", f"{token[:40]!r} is not what ListMemories answered with; leave it empty for the first page"
        )
    return cursor


def _checksum(cursor: str, tenant: str) -> str:
    return f"{zlib.crc32(f'{tenant}/{cursor}'.encode()):08x}"
