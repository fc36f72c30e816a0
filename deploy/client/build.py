"""Builds the distribution hope-serve-client: ``python deploy/client/build.py FOLDER`` makes an sdist and its wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = ("api", "client", "pb", "wire")
MODULES = (
    "__init__.py", "config.py", "engine_config.py", "errors.py", "message.py", "section.py", "py.typed",
    "identity/__init__.py", "identity/caller.py", "identity/config.py", "identity/limits.py", "identity/watched.py",
)  # fmt: skip
"""All that ``hope_serve.client`` imports; the imports' floors keep it so small."""


def main() -> int:
    """Stage the files as a project of their own, and build it."""
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder))
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target.absolute()), folder]
        return subprocess.run(command, check=False).returncode  # noqa: S603  our own words


def stage(folder: Path) -> None:
    """The project that is built."""
    for source in (HERE / "pyproject.toml", HERE / "README.md", ROOT / "LICENSE"):
        shutil.copy(source, folder)
    package = folder / "hope_serve"
    for name in MODULES:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "hope_serve" / name, package / name)
    for name in PACKAGES:
        shutil.copytree(ROOT / "hope_serve" / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))


if __name__ == "__main__":
    sys.exit(main())
