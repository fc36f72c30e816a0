"""A memory part on disk: what a frozen base needs in order to remember, and the one base that it fits.

One safetensors file of at most 30 MB. Tensors (L layers, r rank, F wide, d hidden, s rank of the start):
projection [L, r, F] · log_rate, decay_logit [L] · token_weight.weight [d], token_weight.bias [1] ·
start.NAME.inner [L, s, d_in] and start.NAME.outer [L, d_out, s] for each of ``MATRICES``.
The start changes a matrix W to W + START_SCALE outer inner. Metadata names the base by fingerprint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hope_serve.model.attention import MAX_TOKEN_WEIGHT, AttentionShape, AttentionWeights, LayerWeights
from hope_serve.model.attention_learn import MemoryRule

FORMAT, CLOSING_FORMAT = "hope-memory-part-1", "hope-memory-part-2"
"""The second was trained with chunks that end where a lesson does; a release that does not know it must refuse it."""
MAX_BYTES = 30_000_000
START_SCALE = 2.0
BLANK_RANK, BLANK_CHUNK, BLANK_RATE, BLANK_DECAY = 16, 256, 0.02, 0.995
MATRICES = ("query", "key", "value", "output", "gate", "up", "down")
_SMALL = ("log_rate", "decay_logit", "token_weight.weight", "token_weight.bias")


class PartError(ValueError):
    """The file is not a memory part, or not one of this base; the message says which and the remedy."""


@dataclass(frozen=True, kw_only=True)
class MemoryPart:
    """A memory part's tensors, the fingerprint of its base, and its chunk size in tokens.

    closes_with_lesson: whether the end of a lesson ends its chunk.
    """

    tensors: Mapping[str, Tensor]
    base: str
    chunk_size: int
    closes_with_lesson: bool = False

    @property
    def rank(self) -> int:
        """r, the columns of a user's B."""
        return int(self.tensors["projection"].shape[1])

    @property
    def has_start(self) -> bool:
        """Whether it changes the base's own weights."""
        return any(name.startswith("start.") for name in self.tensors)

    def without_start(self) -> MemoryPart:
        """What is left of it once the base has its start."""
        kept = {name: tensor for name, tensor in self.tensors.items() if not name.startswith("start.")}
        return replace(self, tensors=MappingProxyType(kept))

    def rule(self) -> MemoryRule:
        """What ``memory_gradient`` takes."""
        return MemoryRule(
            projection=self.tensors["projection"],
            weight=self.tensors["token_weight.weight"],
            bias=self.tensors["token_weight.bias"],
        )

    def rates(self) -> Tensor:
        """Step size of every layer, [L, 1, 1]."""
        return self.tensors["log_rate"].exp()[:, None, None]

    def decays(self) -> Tensor:
        """What one update retains in every layer, [L, 1, 1]."""
        return torch.sigmoid(self.tensors["decay_logit"])[:, None, None]


def blank_part(shape: AttentionShape, *, base: str) -> MemoryPart:
    """What a base without a trained part learns by: signs for projections, one rate, and no change of the base.

    The same numbers on every machine, so that a memory can move between them.
    """
    layers, generator = shape.num_layers, torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (layers, BLANK_RANK, shape.wide_size), generator=generator) * 2.0 - 1.0
    tensors = {
        "projection": signs / math.sqrt(shape.wide_size),
        "log_rate": torch.full((layers,), math.log(BLANK_RATE)),
        "decay_logit": torch.full((layers,), math.log(BLANK_DECAY / (1 - BLANK_DECAY))),
        "token_weight.weight": torch.zeros(shape.hidden_size),
        "token_weight.bias": torch.tensor([-math.log(MAX_TOKEN_WEIGHT - 1)]),  # a weight of 1
    }
    return MemoryPart(tensors=MappingProxyType(tensors), base=base, chunk_size=BLANK_CHUNK)


def expected_shapes(shape: AttentionShape, *, rank: int, start_rank: int) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape for a base of ``shape``."""
    layers, sizes = shape.num_layers, matrix_shapes(shape)
    named: dict[str, tuple[int, ...]] = {
        "projection": (layers, rank, shape.wide_size),
        "log_rate": (layers,),
        "decay_logit": (layers,),
        "token_weight.weight": (shape.hidden_size,),
        "token_weight.bias": (1,),
    }
    for name, (out, into) in sizes.items():
        named[f"start.{name}.inner"] = (layers, start_rank, into)
        named[f"start.{name}.outer"] = (layers, out, start_rank)
    return named


def matrix_shapes(shape: AttentionShape) -> Mapping[str, tuple[int, int]]:
    """(out, in) of the seven matrices of a layer."""
    hidden, wide = shape.hidden_size, shape.wide_size
    heads, keys = shape.num_heads * shape.head_size, shape.num_key_heads * shape.head_size
    return MappingProxyType(
        {
            "query": (heads, hidden),
            "key": (keys, hidden),
            "value": (keys, hidden),
            "output": (hidden, heads),
            "gate": (wide, hidden),
            "up": (wide, hidden),
            "down": (hidden, wide),
        }
    )


def with_start(weights: AttentionWeights, tensors: Mapping[str, Tensor]) -> AttentionWeights:
    """The base's weights moved by the part's low-rank start; differentiable in the part's tensors."""

    def change(*names: str) -> Tensor:
        return torch.cat([tensors[f"start.{n}.outer"] @ tensors[f"start.{n}.inner"] for n in names], 1) * START_SCALE

    old = weights.layers
    dtype = old.down.dtype
    moved = LayerWeights(
        attention_norm=old.attention_norm,
        query_key_value=old.query_key_value + change("query", "key", "value").to(dtype),
        output=old.output + change("output").to(dtype),
        mlp_norm=old.mlp_norm,
        gate_up=old.gate_up + change("gate", "up").to(dtype),
        down=old.down + change("down").to(dtype),
        bias=old.bias,
    )
    return weights._replace(layers=moved)


def save_part(path: Path, part: MemoryPart, notes: Mapping[str, str]) -> None:
    """Write a part: matrices in 16 bit, vectors in 32; the file is whole or not there.

    Raises:
        PartError: it would be larger than ``MAX_BYTES``, or a value is not finite or too large for 16 bits.
    """
    tensors = {name: _stored(name, tensor) for name, tensor in part.tensors.items()}
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    if size > MAX_BYTES:
        raise PartError(f"the part takes {size:,} bytes; at most {MAX_BYTES:,}: choose a smaller rank or start rank")
    form = CLOSING_FORMAT if part.closes_with_lesson else FORMAT
    meta = dict(notes) | {"format": form, "base": part.base, "chunk_size": str(part.chunk_size)}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata=meta)
    partial.replace(path)


def planned_part(path: Path) -> MemoryPart:
    """A part without its numbers, from the file's header alone.

    Raises:
        PartError: not a part.
    """
    try:
        with safe_open(path, framework="pt") as file:
            meta = dict(file.metadata() or {})
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  (a file)
    except (SafetensorError, OSError) as error:
        raise PartError(f"{path.name} is not a safetensors file ({error}); name a memory part") from error
    _check_meta(path.name, meta, meta.get("base", ""))
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    _check_ranks(path.name, tensors)
    return _of_meta(tensors, meta)


def load_part(path: Path, shape: AttentionShape, *, base: str) -> MemoryPart:
    """Read a part for the base with fingerprint ``base``; tensors come back as float32.

    Raises:
        PartError: not a part, of another base, too large, or a tensor is missing, misshapen or not finite.
    """
    if not path.is_file():
        raise PartError(f"{path} does not exist; name a memory part (.safetensors)")
    if path.stat().st_size > 2 * MAX_BYTES:
        raise PartError(f"{path.name} has {path.stat().st_size:,} bytes; a memory part has at most {MAX_BYTES:,}")
    try:
        with safe_open(path, framework="pt") as file:
            meta = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118  (a file)
    except SafetensorError as error:
        raise PartError(f"{path.name} is not a safetensors file ({error}); name a memory part") from error
    _check_meta(path.name, meta, base)
    _check_tensors(path.name, tensors, shape)
    return _of_meta(tensors, meta)


def _of_meta(tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> MemoryPart:
    return MemoryPart(
        tensors=MappingProxyType(dict(tensors)),
        base=meta["base"],
        chunk_size=int(meta["chunk_size"]),
        closes_with_lesson=meta["format"] == CLOSING_FORMAT,
    )


def _stored(name: str, tensor: Tensor) -> Tensor:
    kept = tensor.detach().float().cpu().contiguous()
    if name not in _SMALL:
        kept = kept.half()
    if not torch.isfinite(kept).all():
        raise PartError(f"tensor {name} holds a value that is not finite in {kept.dtype}; go back to an earlier save")
    return kept


def _check_meta(name: str, meta: Mapping[str, str], base: str) -> None:
    if meta.get("format") not in (FORMAT, CLOSING_FORMAT):
        raise PartError(
            f"{name} has format {meta.get('format')!r}; this release reads {FORMAT!r} and {CLOSING_FORMAT!r}"
        )
    if meta.get("base") != base:
        raise PartError(
            f"{name} belongs to the base {meta.get('base')}, and this base is {base}: "
            "a memory part works on the base that it was trained on alone"
        )
    if not meta.get("chunk_size", "").isdecimal() or int(meta["chunk_size"]) < 1:
        raise PartError(f"{name} has chunk_size {meta.get('chunk_size')!r}; it must be a number of tokens, at least 1")


def _check_ranks(name: str, tensors: Mapping[str, Tensor]) -> None:
    for needed in ("projection", "start.down.inner"):
        if needed not in tensors or tensors[needed].dim() != 3:
            raise PartError(f"{name} lacks a tensor {needed} of three axes; it is no memory part")


def _check_tensors(name: str, tensors: Mapping[str, Tensor], shape: AttentionShape) -> None:
    _check_ranks(name, tensors)
    ranks = {"rank": tensors["projection"].shape[1], "start_rank": tensors["start.down.inner"].shape[1]}
    expected = expected_shapes(shape, **ranks)
    for problem, odd in (("lacks", expected.keys() - tensors.keys()), ("has the unknown", tensors.keys() - expected)):
        if odd:
            raise PartError(f"{name} {problem} tensor {min(odd)}")
    for key, wanted in expected.items():
        if tuple(tensors[key].shape) != wanted:
            raise PartError(
                f"{name}: tensor {key} has shape {list(tensors[key].shape)}; this base makes it {list(wanted)}"
            )
        if not torch.isfinite(tensors[key]).all():
            raise PartError(f"{name}: tensor {key} holds NaN or infinity; fetch or train it again")
