"""A file that is read again when it changed."""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[int, int, int]


class Watched:
    """Remembers which state of some files was read last.

    Args:
        paths: of the files.
    """

    def __init__(self, *paths: Path) -> None:
        self.paths = paths
        self._seen: tuple[Stamp | None, ...] = ()

    def changed(self) -> bool:
        """Whether a file is another, newer or gone since the last question; true the first time."""
        stamps = tuple(_stamp(path) for path in self.paths)
        changed, self._seen = stamps != self._seen, stamps
        return changed


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ctime_ns, found.st_size, found.st_ino  # ctime: a change of permissions counts too
