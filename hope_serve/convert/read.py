"""Opens whatever source a path names."""

from __future__ import annotations

from pathlib import Path

from hope_serve.convert.source import Source, SourceError

SUMS = "SHA256SUMS"
"""What only checkpoints of this project hold. The rooms of each kind are entered when wanted: they need packages."""


def read_source(path: Path) -> Source:
    """A GGUF file, a Hugging Face folder or a converted checkpoint as a source.

    Raises:
        SourceError: there is nothing there, or nothing that can be read.
    """
    if (path / SUMS).is_file():
        from hope_serve.convert.checkpoint import read_checkpoint

        return read_checkpoint(path)
    if path.is_dir():
        from hope_serve.convert.folder import read_folder

        return read_folder(path)
    if path.suffix == ".gguf":
        from hope_serve.convert.gguf_file import read_gguf

        return read_gguf(path)
    raise SourceError(f"{path} is neither a folder nor a .gguf file; name one of these")
