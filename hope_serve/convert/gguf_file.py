"""A GGUF file of a Llama or Qwen2 model as a source: its fields, its tensors dequantised, its tokenizer rebuilt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, GGUFValueType, dequantize
from torch import Tensor

from hope_serve.convert.gguf_tokenizer import rebuild_tokenizer
from hope_serve.convert.rope import inverse_frequencies
from hope_serve.convert.source import Architecture, Dialogue, Identity, Source, SourceError
from hope_serve.model.attention import AttentionShape

ARCHITECTURES = ("llama", "qwen2")
_TOP = MappingProxyType({"token_embd.weight": "embedding", "output.weight": "head", "output_norm.weight": "norm"})
_IN_LAYER = MappingProxyType(
    {
        "attn_norm.weight": "attention_norm",
        "ffn_norm.weight": "mlp_norm",
        "attn_q.weight": "query",
        "attn_k.weight": "key",
        "attn_v.weight": "value",
        "attn_output.weight": "output",
        "ffn_gate.weight": "gate",
        "ffn_up.weight": "up",
        "ffn_down.weight": "down",
        "attn_q.bias": "query_bias",
        "attn_k.bias": "key_bias",
        "attn_v.bias": "value_bias",
    }
)


def read_gguf(path: Path) -> Source:
    """Open a GGUF file.

    Raises:
        SourceError: not GGUF, another architecture, a rope scaling or tokenizer that is not implemented.
    """
    reader = _open(path)
    fields = {name: field.contents() for name, field in reader.fields.items() if _is_read(field)}
    architecture = _architecture(path.name, fields, reader)
    return Source(
        architecture=architecture,
        tensors=GgufTensors(reader, architecture),
        dialogue=_dialogue(path.name, fields, architecture.shape.vocab_size),
        identity=_identity(path, fields),
    )


class GgufTensors:
    """The file's tensors under this project's names; one is dequantised when it is read."""

    def __init__(self, reader: GGUFReader, architecture: Architecture) -> None:
        self._architecture = architecture
        self._tensors = {_our_name(tensor.name): tensor for tensor in reader.tensors}
        self._tensors.pop("rope_freqs.weight", None)

    def names(self) -> frozenset[str]:
        """See ``Tensors.names``."""
        return frozenset(self._tensors)

    def read(self, name: str) -> Tensor:
        """See ``Tensors.read``."""
        tensor = self._tensors[name]
        try:
            values = dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            raise SourceError(
                f"tensor {tensor.name} is quantised as {tensor.tensor_type.name}, which cannot be read; "
                "use a file in F16, BF16, Q8_0, Q4_1 or another kind that the gguf package dequantises"
            ) from error
        array = values.astype(np.float32).reshape([int(size) for size in tensor.shape[::-1]])
        return self._unwoven(name, torch.from_numpy(np.ascontiguousarray(array)))

    def _unwoven(self, name: str, tensor: Tensor) -> Tensor:
        """Files of architecture llama interleave the rotary halves of q and k; every other keeps them apart."""
        kind = name.partition(".")[2]
        shape = self._architecture.shape
        heads = {"query": shape.num_heads, "key": shape.num_key_heads}.get(kind.removesuffix("_bias"))
        if self._architecture.name != "llama" or heads is None:
            return tensor
        pairs = tensor.view(heads, shape.head_size // 2, 2, *tensor.shape[1:])
        return pairs.transpose(1, 2).reshape(tensor.shape).contiguous()


def _open(path: Path) -> GGUFReader:
    if not path.is_file():
        raise SourceError(f"{path} does not exist; name a .gguf file or a Hugging Face folder")
    try:
        return GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise SourceError(f"{path.name} is not a whole GGUF file ({error}); fetch it again") from error


def _is_read(field: Any) -> bool:
    """Arrays of arrays are of no use here and slow to unpack."""
    return bool(field.types) and field.types.count(GGUFValueType.ARRAY) < 2


def _our_name(name: str) -> str:
    if name.startswith("blk."):
        _, layer, rest = name.split(".", 2)
        return f"{layer}.{_IN_LAYER[rest]}" if rest in _IN_LAYER else name
    return _TOP.get(name, name)


def _architecture(name: str, fields: Mapping[str, Any], reader: GGUFReader) -> Architecture:
    kind = fields.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise SourceError(f"{name} is of architecture {kind!r}; known are {', '.join(ARCHITECTURES)}")

    def number(key: str, default: float | None = None) -> Any:
        value = fields.get(f"{kind}.{key}", default)
        if value is None:
            raise SourceError(f"{name} lacks the field {kind}.{key}; it is no whole model")
        return value

    tensors = {tensor.name: tensor for tensor in reader.tensors}
    heads, hidden = int(number("attention.head_count")), int(number("embedding_length"))
    head_size = int(number("attention.key_length", hidden // heads))
    if "token_embd.weight" not in tensors:
        raise SourceError(f"{name} lacks tensor token_embd.weight; it is no whole model")
    shape = AttentionShape(
        vocab_size=int(tensors["token_embd.weight"].shape[-1]),
        hidden_size=hidden,
        num_layers=int(number("block_count")),
        num_heads=heads,
        num_key_heads=int(number("attention.head_count_kv", heads)),
        head_size=head_size,
        wide_size=int(number("feed_forward_length")),
        norm_eps=_short(number("attention.layer_norm_rms_epsilon")),
        inverse_frequencies=inverse_frequencies(
            head_size, _short(number("rope.freq_base", 10000.0)), _scaling(name, kind, fields, tensors)
        ),
    )
    return Architecture(
        name=str(kind),
        shape=shape,
        biases="blk.0.attn_q.bias" in tensors,
        tied="output.weight" not in tensors,
        max_context_tokens=int(number("context_length")),
    )


def _scaling(name: str, kind: str, fields: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any] | None:
    scaling = fields.get(f"{kind}.rope.scaling.type", "none")
    if "rope_freqs.weight" in tensors:
        factors = dequantize(tensors["rope_freqs.weight"].data, tensors["rope_freqs.weight"].tensor_type)
        return {"rope_type": "factors", "factors": [float(value) for value in factors.reshape(-1)]}
    if scaling in ("none", None):
        return None
    if scaling == "linear":
        return {"rope_type": "linear", "factor": float(fields[f"{kind}.rope.scaling.factor"])}
    raise SourceError(f"{name} has rope scaling {scaling!r}; implemented are none, linear and llama3")


def _dialogue(name: str, fields: Mapping[str, Any], vocab_size: int) -> Dialogue:
    tokens = fields.get("tokenizer.ggml.tokens") or []
    if not tokens or len(tokens) > vocab_size:
        raise SourceError(f"{name} has {len(tokens)} tokens for {vocab_size} embeddings; its tokenizer does not fit")

    def token(key: str) -> str:
        at = fields.get(f"tokenizer.ggml.{key}_token_id")
        return "" if at is None else str(tokens[int(at)])

    stops = {
        int(fields[key]) for key in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id") if key in fields
    }
    return Dialogue(
        tokenizer=rebuild_tokenizer(name, fields),
        chat_template=str(fields.get("tokenizer.chat_template", "")),
        stop_tokens=tuple(sorted(stops)),
        bos_token=token("bos"),
        eos_token=token("eos"),
    )


def _identity(path: Path, fields: Mapping[str, Any]) -> Identity:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Identity(
        name=str(fields.get("general.name", path.stem)),
        licence=str(fields.get("general.license", "not stated")),
        files=MappingProxyType({path.name: digest}),
        fingerprint=digest,
    )


def _short(value: float) -> float:
    """The decimal that a 32-bit float stood for: 1e-05 and not 9.999999747378752e-06."""
    return float(np.format_float_positional(np.float32(value), unique=True, trim="0"))
