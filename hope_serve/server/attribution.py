"""Says in the record of changes which credential made them; the store itself knows of none."""

from __future__ import annotations

import msgspec

from hope_serve.memory.audit import AuditEvent, AuditLog
from hope_serve.server.owners import VISIT


class AttributedAudit:
    """An ``AuditLog`` before another.

    Args:
        log: takes the events.
    """

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def record(self, event: AuditEvent) -> None:
        """Add the name of the credential of the call under way, if there is one."""
        visit = VISIT.get(None)
        self._log.record(msgspec.structs.replace(event, by=visit.caller.name) if visit else event)
