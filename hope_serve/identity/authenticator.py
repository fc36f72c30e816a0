"""From a bearer credential to a caller; what it knows of keys follows the files and URLs they come from."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable

from hope_serve.errors import Unauthenticated
from hope_serve.identity.api_keys import PREFIX, ApiKeys, digest_of, load_keys
from hope_serve.identity.caller import Caller
from hope_serve.identity.config import IdentityConfig
from hope_serve.identity.jwks import Jwk, Jwks
from hope_serve.identity.tokens import Verified, key_id, verify
from hope_serve.identity.watched import Watched
from hope_serve.section import ConfigError, expanded

MAX_CREDENTIAL_CHARS = 8192
MAX_VERIFIED = 4096
RETRY_SECONDS = 10.0
"""Between two looks for a key that a token names and the set does not have: guesses must not become requests."""

log = logging.getLogger(__name__)


class Authenticator:
    """Knows every valid credential.

    Args:
        config: where credentials come from.
        clock: Unix seconds.

    Raises:
        ConfigError: a file or URL that cannot be read now, at the start.
    """

    def __init__(self, config: IdentityConfig, *, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._clock = clock
        self._key_file = Watched(expanded(config.key_file)) if config.key_file else None
        self._jwks = Jwks(config.jwks, max_age=config.jwks_seconds) if config.jwks else None
        self._keys = ApiKeys((), clock=clock)
        self._verified: OrderedDict[tuple[int, str], Verified] = OrderedDict()
        self._looking = asyncio.Lock()
        self.load()

    async def caller(self, credential: str) -> Caller:
        """Who shows this credential.

        Raises:
            Unauthenticated: it is none that is known and valid.
        """
        if not credential or not credential.isascii() or len(credential) > MAX_CREDENTIAL_CHARS:
            raise Unauthenticated(
                "no credential was shown; send `authorization: Bearer <key or token>`", reason="CREDENTIAL_MISSING"
            )
        if credential.startswith(PREFIX):
            return self._of_key(credential)
        return await self._of_token(credential)

    def load(self) -> bool:
        """Read what changed; blocks. Whether anything did.

        Raises:
            ConfigError: a file or URL cannot be read; what was known stays known.
        """
        changed = False
        if self._key_file and self._key_file.changed():
            self._keys = ApiKeys(load_keys(self._key_file.paths[0]), clock=self._clock)
            changed = True
        if self._jwks and self._jwks.stale():
            self._jwks.read()
            changed = True
        return changed

    def _of_key(self, credential: str) -> Caller:
        caller = self._keys.caller(credential)
        if caller is None:
            raise Unauthenticated(
                "the key is unknown, revoked or expired; ask the server's operator for another",
                reason="KEY_UNKNOWN",
            )
        return caller

    async def _of_token(self, token: str) -> Caller:
        if self._jwks is None:
            raise Unauthenticated("this server takes keys, and this is none", reason="KEY_UNKNOWN")
        place = (self._jwks.generation, digest_of(token))
        verified = self._verified.get(place)
        if verified is None:
            key = await self._key(self._jwks, key_id(token))
            verified = await asyncio.to_thread(verify, token, key, self._config)  # some hundred microseconds
            self._remember(place, verified)
        if verified.expires_at + self._config.leeway_seconds <= self._clock():
            raise Unauthenticated("the token has expired; ask its issuer for another", reason="TOKEN_EXPIRED")
        return verified.caller

    async def _key(self, jwks: Jwks, kid: str | None) -> Jwk:
        """The key that signed; an unknown one is looked for once more, since issuers change keys unannounced."""
        if key := jwks.find(kid):
            return key
        async with self._looking:
            if jwks.find(kid) is None and jwks.age() >= RETRY_SECONDS:
                try:
                    await asyncio.to_thread(jwks.read)
                except ConfigError as error:
                    log.warning("the former keys stay: %s", error)
        if key := jwks.find(kid):
            return key
        raise Unauthenticated("the token is refused: no key that we know signed it", reason="TOKEN_KEY_UNKNOWN")

    def _remember(self, place: tuple[int, str], verified: Verified) -> None:
        self._verified[place] = verified
        while len(self._verified) > MAX_VERIFIED:
            self._verified.popitem(last=False)
