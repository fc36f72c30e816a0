"""Generates hope_serve/pb from the contract: ``python proto/generate.py``; with ``--check`` only compares.

The files keep their canonical names (``hope/v1/...``, as other languages and reflection see them); only the Python
imports between them are moved below ``hope_serve.pb``.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).parent
TARGET = PROTO.parent / "hope_serve" / "pb"
PACKAGES = {
    Path("__init__.py"): '"""Generated from proto/ by proto/generate.py; not edited."""\n',
    Path("hope/__init__.py"): "",
    Path("hope/v1/__init__.py"): "",
}


def main() -> int:
    """Write the generated files, or say which ones are stale."""
    fresh = generate()
    on_disk = {p.relative_to(TARGET): p.read_text() for p in TARGET.rglob("*.py*") if p.suffix in (".py", ".pyi")}
    stale = sorted(str(path) for path in fresh.keys() | on_disk.keys() if fresh.get(path) != on_disk.get(path))
    if "--check" in sys.argv[1:]:
        if stale:
            print(f"stale in hope_serve/pb: {', '.join(stale)}; run `python proto/generate.py`", file=sys.stderr)
        return len(stale) > 0
    for path in on_disk.keys() - fresh.keys():
        (TARGET / path).unlink()
    for path, text in fresh.items():
        (TARGET / path).parent.mkdir(parents=True, exist_ok=True)
        (TARGET / path).write_text(text)
    return 0


def generate() -> dict[Path, str]:
    """Every generated file below hope_serve/pb."""
    sources = sorted(PROTO.glob("hope/v1/*.proto"))
    services = [path for path in sources if re.search(r"^service ", path.read_text(), re.MULTILINE)]
    with tempfile.TemporaryDirectory() as folder:
        _run_protoc([f"--python_out={folder}", f"--mypy_out=quiet:{folder}"], sources)
        _run_protoc([f"--grpc_python_out={folder}", f"--mypy_grpc_out=quiet:{folder}"], services)
        made = [p for p in Path(folder).rglob("*") if p.is_file()]
        return PACKAGES | {p.relative_to(folder): _below_package(p.read_text()) for p in made}


def _run_protoc(outputs: list[str], sources: list[Path]) -> None:
    includes = [f"-I{PROTO}", f"-I{Path(protoc.__file__).parent / '_proto'}"]
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # finds the plug-ins
    if protoc.main(["protoc", *includes, *outputs, *map(str, sources)]):
        raise SystemExit("protoc failed; its messages stand above")


def _below_package(text: str) -> str:
    return re.sub(r"^from hope\.v1 import", "from hope_serve.pb.hope.v1 import", text, flags=re.MULTILINE)


if __name__ == "__main__":
    sys.exit(main())
