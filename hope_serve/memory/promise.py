"""Whether a store still keeps what it promised when it was opened: durability, no eviction, its own secret.

Settings of a database change while it runs. Whoever acknowledges a change asks here first; a job looks again every few
seconds, so that no acknowledgement is given for long on the word of a database that was told to be careless.
"""

from __future__ import annotations

import logging

from hope_serve.errors import CorruptMemory, FailedPrecondition, Unavailable
from hope_serve.memory.backend import Backend
from hope_serve.memory.owners import Owners

_log = logging.getLogger(__name__)


class Promise:
    """Of one open store.

    Args:
        backend: what promised.
        owners: knows the secret the store was opened with.
    """

    def __init__(self, backend: Backend, owners: Owners) -> None:
        self._backend = backend
        self._owners = owners
        self._broken: FailedPrecondition | CorruptMemory | None = None

    @property
    def kept(self) -> bool:
        """As of the last look."""
        return self._broken is None

    async def look(self) -> None:
        """Look again. Raises Unavailable when the database does not answer; what was known then stays known."""
        try:
            await self._backend.check()
            await self._owners.check_secret()
        except (FailedPrecondition, CorruptMemory) as error:
            if self._broken is None or str(error) != str(self._broken):
                _log.error("promise_broken: nothing is acknowledged until this is put right: %s", error)
            self._broken = error
        else:
            if self._broken:
                _log.warning("the store keeps its promise again; changes are acknowledged")
            self._broken = None

    def require(self) -> None:
        """Raises Unavailable while the promise is broken; the log says which setting of which server it is."""
        if self._broken:
            raise Unavailable(
                "the store does not keep the promise it was opened with, so nothing is acknowledged until its operator "
                "puts that right; try again with the same request id",
                reason=self._broken.reason,
            )
