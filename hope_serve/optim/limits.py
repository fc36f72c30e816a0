"""The limits on optimizers' hyperparameters: who breaks one is told the field, the value and the limit."""

from __future__ import annotations


def require_retention(field: str, value: float) -> None:
    """A share that is retained at every update; 1 would let the sum grow for ever.

    Raises:
        ValueError: the value lies outside [0, 1).
    """
    if not 0 <= value < 1:
        raise ValueError(f"{field} is {value}; it must lie in [0, 1)")


def require_between(field: str, value: float, least: float, most: float) -> None:
    """A number with both ends.

    Raises:
        ValueError: the value lies outside [least, most], or is not a number.
    """
    if not least <= value <= most:
        raise ValueError(f"{field} is {value}; it must lie in [{least}, {most}]")
