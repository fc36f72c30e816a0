"""The parts of a store's URL, whose authority may list several hosts: the standard library takes only one."""

from __future__ import annotations

import re
from typing import NamedTuple

# RFC 3986, appendix B.
_PARTS = re.compile(
    r"(?:(?P<scheme>[^:/?#]+):)?(?://(?P<authority>[^/?#]*))?(?P<path>[^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.S
)


class UrlParts(NamedTuple):
    """What stands between the separators, as it was written."""

    scheme: str
    authority: str
    path: str
    query: str
    fragment: str

    @property
    def hosts(self) -> str:
        """The authority without a user's name and password."""
        return self.authority.rpartition("@")[2]

    @property
    def place(self) -> str:
        """The URL without what identifies its reader: fit to be shown."""
        relative = not self.authority and not self.path.startswith("/")
        return f"{self.scheme}:{'' if relative else '//'}{self.hosts}{self.path}"

    @property
    def credential(self) -> str:
        """user:password, or nothing."""
        return self.authority.rpartition("@")[0]

    def with_option(self, name: str, value: str) -> str:
        """The URL with one more option in its query."""
        query = "&".join(filter(None, (self.query, f"{name}={value}")))
        return f"{self.scheme}://{self.authority}{self.path}?{query}" + (f"#{self.fragment}" if self.fragment else "")


def split_url(url: str) -> UrlParts:
    """Any text has these parts; whether they mean something is for the reader of each to say."""
    match = _PARTS.fullmatch(url)
    assert match, "every text matches"
    scheme, *others = (part or "" for part in match.groups())
    return UrlParts(scheme.lower(), *others)
