"""The device has one owner: the thread that made what lives on it."""

from __future__ import annotations

import threading


class Ownership:
    """Belongs to the thread that makes it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def check(self) -> None:
        """Another thread here is a fault of ours; not looked for under ``python -O``."""
        assert threading.get_ident() == self._thread, "a thread that does not own the device touched what lives on it"
