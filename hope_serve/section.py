"""A table of the configuration's file: what all of them check alike."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import msgspec


class ConfigError(ValueError):
    """The configuration names an unknown key or a value that is not allowed."""


@dataclass(frozen=True)
class Range:
    """Both ends are allowed; NaN and infinity never are."""

    low: float
    high: float


Seconds = Annotated[float, Range(0.0, 86_400.0)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; checks every number against the range in its annotation."""

    def __post_init__(self) -> None:
        for name, limits in _ranges(type(self)).items():
            value = getattr(self, name)
            if not (limits.low <= value <= limits.high and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; choose a value in [{limits.low:g}, {limits.high:g}]")


def parse_address(text: str, name: str) -> tuple[str, int]:
    """Host and port of ``host:port``; port 0 is any free one.

    Raises:
        ValueError: not of that form.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{name} is {text!r}; write host:port with a port in [0, 65535], such as 127.0.0.1:50051")
    return host.strip("[]"), int(port)


def expanded(path: str | Path) -> Path:
    """The path with ~ replaced by the home folder it stands for.

    Raises:
        ConfigError: there is none, as for an account without an entry in the system's list and without HOME.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{str(path).partition('/')[0]} stands for no folder: this account has no home") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host. A name other than localhost is taken for one that others reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ranges(section: type[Section]) -> dict[str, Range]:
    hints = get_type_hints(section, include_extras=True)
    return {
        name: note
        for name, hint in hints.items()
        if get_origin(hint) is Annotated
        for note in get_args(hint)
        if isinstance(note, Range)
    }
