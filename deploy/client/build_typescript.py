"""Builds the TypeScript client: ``python deploy/client/build_typescript.py FOLDER`` makes an npm package there.

What it needs of npm is in ``.venv/typescript``, where `make client` puts it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google import rpc
from grpc_tools import protoc  # type: ignore[import-untyped]

HERE = Path(__file__).parent / "typescript"
ROOT = HERE.parents[2]
MODULES = Path(sys.prefix) / "typescript" / "node_modules"
PROTOS = ("hope/v1/adaptation.proto", "hope/v1/content.proto", "hope/v1/inference.proto", "hope/v1/memory.proto")
DETAILS = "google/rpc/error_details.proto"


def main() -> int:
    """Stage the sources and the generated code, compile them, and pack."""
    target = Path(sys.argv[1]).absolute()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder))
        for command in (["node_modules/.bin/tsc"], ["npm", "pack", "--silent", "--pack-destination", str(target)]):
            subprocess.run(command, cwd=folder, check=True)  # noqa: S603  our own words
    return 0


def stage(folder: Path) -> None:
    """The project that is built."""
    shutil.copytree(HERE, folder, dirs_exist_ok=True)
    shutil.copy(ROOT / "LICENSE", folder)
    package = json.loads((HERE / "package.json").read_text())
    package["version"] = _version()
    (folder / "package.json").write_text(json.dumps(package, indent=2))
    (folder / "node_modules").symlink_to(MODULES)
    generate(folder / "src" / "gen")


def generate(target: Path) -> None:
    """The contract, and the details that its errors carry, as TypeScript. Raises SystemExit when protoc fails."""
    target.mkdir()
    includes = (ROOT / "proto", Path(protoc.__file__).parent / "_proto", Path(rpc.__path__[0]).parents[1])
    plugin = f"--plugin=protoc-gen-es={MODULES / '.bin' / 'protoc-gen-es'}"
    options = [f"--es_out={target}", "--es_opt=target=ts,import_extension=js"]
    words = ["protoc", *(f"-I{path}" for path in includes), plugin, *options, *PROTOS, DETAILS]
    if protoc.main(words):
        raise SystemExit("protoc failed; its messages stand above")


def _version() -> str:
    text = (ROOT / "hope_serve" / "__init__.py").read_text()
    return text.partition('__version__ = "')[2].partition('"')[0]


if __name__ == "__main__":
    sys.exit(main())
