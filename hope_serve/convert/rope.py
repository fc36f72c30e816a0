"""The rotary frequencies of a source, by its base and the scalings that are implemented."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hope_serve.convert.source import SourceError

IMPLEMENTED = ("default", "linear", "llama3")


def inverse_frequencies(head_size: int, base: float, scaling: Mapping[str, Any] | None) -> tuple[float, ...]:
    """The e / 2 angles a position turns by.

    Args:
        scaling: None, or ``rope_type`` with its numbers: linear (factor), llama3 (factor, low_freq_factor,
            high_freq_factor, original_max_position_embeddings), factors (one divisor a frequency).

    Raises:
        SourceError: another scaling, or one of its numbers is missing.
    """
    plain = [base ** (-2 * i / head_size) for i in range(head_size // 2)]
    kind = (scaling or {}).get("rope_type", (scaling or {}).get("type", "default"))
    if scaling is None or kind == "default":
        return tuple(plain)
    if kind == "linear":
        factor = _number(scaling, "factor")
        return tuple(f / factor for f in plain)
    if kind == "llama3":
        return tuple(_llama3(f, scaling) for f in plain)
    if kind == "factors" and len(scaling["factors"]) == len(plain):
        return tuple(f / factor for f, factor in zip(plain, scaling["factors"], strict=True))
    raise SourceError(f"rope scaling {kind!r} is not implemented; implemented are {', '.join(IMPLEMENTED)}")


def _llama3(frequency: float, scaling: Mapping[str, Any]) -> float:
    """Long waves are stretched by the factor, short ones kept, those between blended."""
    factor = _number(scaling, "factor")
    low, high = _number(scaling, "low_freq_factor"), _number(scaling, "high_freq_factor")
    turns = _number(scaling, "original_max_position_embeddings") * frequency / (2 * math.pi)
    blend = min(1.0, max(0.0, (turns - low) / (high - low)))
    return (1 - blend) * frequency / factor + blend * frequency


def _number(scaling: Mapping[str, Any], key: str) -> float:
    if not isinstance(scaling.get(key), int | float):
        raise SourceError(f"rope scaling lacks {key}, going by {dict(scaling)}")
    return float(scaling[key])
