"""The keys that verify tokens: a JWKS document in a file or at a URL."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

import msgspec

from hope_serve.identity.watched import Watched
from hope_serve.section import ConfigError, expanded

MAX_BYTES = 2**20
FETCH_SECONDS = 5.0
ASYMMETRIC = ("RSA", "EC", "OKP")

Jwk = Mapping[str, Any]


class Jwks:
    """Keys by their ``kid``, as of the last time that the document could be read.

    Args:
        place: a file, or an http(s) URL.
        max_age: seconds after which a URL is asked again; a file is read again when it changes.
        clock: monotonic seconds.
    """

    def __init__(self, place: str, *, max_age: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._place = place
        self._max_age = max_age
        self._clock = clock
        self._file = None if urlsplit(place).scheme in ("http", "https") else Watched(expanded(place))
        self._read_at = -float("inf")
        self._keys: Mapping[str, Jwk] = {}
        self.generation = 0
        """Grows when the keys are exchanged: what the former ones verified has to be verified again."""

    def find(self, kid: str | None) -> Jwk | None:
        """The key with this id; without an id, the only key there is."""
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    def age(self) -> float:
        """Seconds since the document was asked for."""
        return self._clock() - self._read_at

    def stale(self) -> bool:
        """Whether it is time to read the document again."""
        return self._file.changed() if self._file else self.age() >= self._max_age

    def read(self) -> None:
        """Read the document; blocks for at most some seconds.

        Raises:
            ConfigError: it cannot be had, or is none; the keys stay as they were.
        """
        self._read_at = self._clock()
        try:
            content = self._file.paths[0].read_bytes() if self._file else self._fetched()
        except (OSError, URLError) as error:
            raise ConfigError(f"the keys of identity.jwks {self._place} cannot be read: {error}") from error
        self._keys = _parsed(content, self._place)
        self.generation += 1

    def _fetched(self) -> bytes:
        request = urllib.request.Request(self._place, headers={"Accept": "application/json"})  # noqa: S310  http(s) only
        with urllib.request.build_opener(_Stay).open(request, timeout=FETCH_SECONDS) as reply:
            content: bytes = reply.read(MAX_BYTES + 1)
        return content


class _Stay(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: from https that may be http, or another's server."""

    def redirect_request(self, *_: Any) -> None:
        """None is an error for whoever asked."""


def _parsed(content: bytes, place: str) -> Mapping[str, Jwk]:
    if len(content) > MAX_BYTES:
        raise ConfigError(f"identity.jwks {place} is longer than {MAX_BYTES} bytes; it is no set of keys")
    try:
        document = msgspec.json.decode(content)
        keys = [key for key in document["keys"] if key["kty"] in ASYMMETRIC and key.get("use", "sig") == "sig"]
        named = {str(key.get("kid", i)): key for i, key in enumerate(keys)}
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"identity.jwks {place} is no JWKS document: {error!r}") from error
    if not named:
        raise ConfigError(f"identity.jwks {place} has no key that verifies; RSA, EC or OKP is needed")
    return named
