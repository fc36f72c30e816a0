"""What is refused, and in which words: numbers out of range, names that are none."""

from __future__ import annotations

from types import MappingProxyType

from hope_serve.errors import InvalidRequest

MAX_VERSIONS = 8
_JOINERS = MappingProxyType(dict.fromkeys((0x200C, 0x200D)))  # ZERO WIDTH NON-JOINER and JOINER
MIN_PASSPHRASE, MAX_PASSPHRASE = 8, 1024


def check_range(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    """Refuse a number that is not finite or lies outside [low, high], or (low, high] when ``open_low``.

    Raises:
        InvalidRequest: naming field, value and limit.
    """
    within = low < value <= high if open_low else low <= value <= high
    if not within:  # also true of NaN, which passes any single comparison the other way round
        bracket = "(" if open_low else "["
        raise InvalidRequest(name, f"{value} is outside {bracket}{low}, {high}]; choose a value within it")


def check_versions(versions: tuple[int, ...]) -> None:
    """Refuse too many versions, numbers that no version has, and one that is named twice.

    Raises:
        InvalidRequest: naming field, value and limit.
    """
    check_range("versions (count)", len(versions), 0, MAX_VERSIONS)
    for i, version in enumerate(versions):
        check_range(f"versions[{i}]", version, 1, 2**62)
    if len(set(versions)) < len(versions):
        raise InvalidRequest("versions", f"{list(versions)} names a version twice; name each once")


def check_passphrase(passphrase: str | None) -> None:
    """Refuse a passphrase that is too short to protect anything, or too long; the error does not repeat it.

    Raises:
        InvalidRequest: naming field, length and limit.
    """
    if passphrase is not None:
        check_range("passphrase (characters)", len(passphrase), MIN_PASSPHRASE, MAX_PASSPHRASE)


def check_name(name: str, value: str, limit: int, *, required: bool = True) -> None:
    """Refuse an id that is too long, holds control characters, or is empty or invisible though it must not be.

    The joiners that Persian words and emoji of several people are spelt with have no form of their own, and are allowed
    between characters that do.

    Raises:
        InvalidRequest: naming field, value and limit.
    """
    check_range(f"{name} (characters)", len(value), int(required), limit)
    visible = value.translate(_JOINERS)
    if not visible.isprintable() or (value and not visible):
        raise InvalidRequest(name, f"{value!r} holds unprintable characters; use letters, digits and punctuation")
