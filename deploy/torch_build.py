"""Says which build of torch pip would take, and refuses one with CUDA that nobody asked for, naming what it weighs.

    python deploy/torch_build.py CONSTRAINTS [INDEX [GOAL]]

Run by the environment's own Python before anything is installed; needs nothing but pip, 23.3 or newer. INDEX is asked
beside pip's own, as by ``make GOAL TORCH_INDEX=INDEX``. Exit status 1 is the refusal.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import Any

CUDA = ("nvidia-", "cuda-")
TIMEOUT_SECONDS = 10
REFUSAL = """\
{torch} would bring {count} packages of CUDA along, {size} to download. Choose one:
    make {goal} TORCH_INDEX=https://download.pytorch.org/whl/cpu   a build without CUDA, some 200 MB, there or elsewhere
    make {goal} CUDA=1                                             the build with CUDA
This is for Python {python}; an index may have other builds for another (make {goal} PYTHON=...).
"""


def main() -> int:
    """Judge what would be installed."""
    constraints, index, goal = (*sys.argv[1:], "", "")[:3]
    planned = plan(constraints, index)
    heavy = [package for package in planned if package["metadata"]["name"].startswith(CUDA)]
    if not heavy:
        return 0
    [torch] = [package for package in planned if package["metadata"]["name"] == "torch"]
    weighed = size_of([torch, *heavy])
    print(
        REFUSAL.format(
            torch=f"torch {torch['metadata']['version']}",
            count=len(heavy),
            size=f"{weighed / 1e9:.1f} GB" if weighed else "gigabytes",
            python=".".join(map(str, sys.version_info[:2])),
            goal=goal or "demo",
        ),
        file=sys.stderr,
    )
    return 1


def plan(constraints: str, index: str) -> list[dict[str, Any]]:
    """What pip would install for torch; nothing when it is there. Raises SystemExit when pip finds no torch."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"]
    command += ["--report", "-", "--constraint", constraints, "torch"]
    command += ["--extra-index-url", index] if index else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603  our own words
    if done.returncode:
        raise SystemExit("pip finds no build of torch; its messages stand above")
    packages: list[dict[str, Any]] = json.loads(done.stdout)["install"]
    return packages


def size_of(packages: list[dict[str, Any]]) -> int:
    """Bytes to download; 0 when a server does not say."""
    sizes = [_size(package["download_info"]["url"]) for package in packages]
    return sum(sizes) if all(sizes) else 0


def _size(url: str) -> int:
    asked = urllib.request.Request(url, method="HEAD")  # noqa: S310  as pip would ask it
    try:
        with urllib.request.urlopen(asked, timeout=TIMEOUT_SECONDS) as reply:  # noqa: S310
            return int(reply.headers.get("Content-Length", 0))
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
