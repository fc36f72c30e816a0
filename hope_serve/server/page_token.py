"""Tokens of pages: the store's cursor with a checksum, so that one that was made up or cut is no silent other page."""

from __future__ import annotations

import zlib

from hope_serve.errors import InvalidRequest

MAX_TOKEN_CHARS = 1024


def write_page_token(cursor: str) -> str:
    """The token of the page after ``cursor``; "" when there is none."""
    return f"{_checksum(cursor)}.{cursor}" if cursor else ""


def read_page_token(token: str) -> str:
    """The cursor; "" for the first page.

    Raises:
        InvalidRequest: no server wrote this token.
    """
    checksum, _, cursor = token.partition(".")
    if len(token) > MAX_TOKEN_CHARS or (token and checksum != _checksum(cursor)):
        raise InvalidRequest(
            "page_token", f"{token[:40]!r} is not what ListMemories answered with; leave it empty for the first page"
        )
    return cursor


def _checksum(cursor: str) -> str:
    return f"{zlib.crc32(cursor.encode()):08x}"
