"""A Hugging Face folder as a source: configuration, safetensors in one file or in shards, tokenizer and template."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from hope_serve.convert.rope import inverse_frequencies
from hope_serve.convert.source import Architecture, Dialogue, Identity, Source, SourceError
from hope_serve.model.attention import AttentionShape

ARCHITECTURES = MappingProxyType({"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"})
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_TOP = MappingProxyType(
    {"model.embed_tokens.weight": "embedding", "lm_head.weight": "head", "model.norm.weight": "norm"}
)
_IN_LAYER = MappingProxyType(
    {
        "input_layernorm.weight": "attention_norm",
        "post_attention_layernorm.weight": "mlp_norm",
        "self_attn.q_proj.weight": "query",
        "self_attn.k_proj.weight": "key",
        "self_attn.v_proj.weight": "value",
        "self_attn.o_proj.weight": "output",
        "mlp.gate_proj.weight": "gate",
        "mlp.up_proj.weight": "up",
        "mlp.down_proj.weight": "down",
        "self_attn.q_proj.bias": "query_bias",
        "self_attn.k_proj.bias": "key_bias",
        "self_attn.v_proj.bias": "value_bias",
    }
)


def read_folder(folder: Path) -> Source:
    """Open a folder as published for ``transformers``.

    Raises:
        SourceError: a file is missing, the architecture, a rope scaling or an option is not implemented, or the
            tokenizer does not fit.
    """
    config = _json(folder / "config.json")
    files = _weight_files(folder)
    architecture = _architecture(config)
    return Source(
        architecture=architecture,
        tensors=FolderTensors(folder, files, tied=architecture.tied),
        dialogue=_dialogue(folder, config, architecture.shape.vocab_size),
        identity=_identity(folder, config, files),
    )


class FolderTensors:
    """The folder's tensors under this project's names, read when asked for."""

    def __init__(self, folder: Path, files: tuple[str, ...], *, tied: bool) -> None:
        self._places: dict[str, tuple[Path, str]] = {}
        for file in files:
            with _opened(folder / file) as tensors:
                for name in tensors.keys():  # noqa: SIM118  (a file, not a mapping)
                    self._places[_our_name(name)] = (folder / file, name)
        if tied:
            self._places.pop("head", None)

    def names(self) -> frozenset[str]:
        """See ``Tensors.names``."""
        return frozenset(name for name in self._places if not name.endswith("rotary_emb.inv_freq"))

    def read(self, name: str) -> Tensor:
        """See ``Tensors.read``."""
        path, theirs = self._places[name]
        with _opened(path) as tensors:
            tensor: Tensor = tensors.get_tensor(theirs)
        if not tensor.is_floating_point():
            raise SourceError(
                f"tensor {theirs} is {tensor.dtype}: quantised folders are not read; use one in 16 or 32 bit"
            )
        return tensor.float()


def _our_name(name: str) -> str:
    if name.startswith("model.layers."):
        _, _, layer, rest = name.split(".", 3)
        return f"{layer}.{_IN_LAYER.get(rest, rest)}"
    return _TOP.get(name, name)


def _weight_files(folder: Path) -> tuple[str, ...]:
    if (folder / INDEX).is_file():
        named = tuple(sorted(set(_json(folder / INDEX).get("weight_map", {}).values())))
        for name in named:
            if Path(name).name != name or not (folder / name).is_file():
                raise SourceError(f"{folder} lacks the shard {name} that {INDEX} names; fetch it")
        return named
    if (folder / SINGLE).is_file():
        return (SINGLE,)
    raise SourceError(f"{folder} holds neither {SINGLE} nor {INDEX}; other formats of weights are not read")


def _architecture(config: Mapping[str, Any]) -> Architecture:
    names = config.get("architectures") or []
    known = next((ARCHITECTURES[name] for name in names if name in ARCHITECTURES), None)
    if known is None:
        raise SourceError(f"config.json names the architecture {names}; known are {', '.join(ARCHITECTURES)}")
    _check_options(config)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    heads, hidden = int(_needed(config, "num_attention_heads")), int(_needed(config, "hidden_size"))
    head_size = int(config.get("head_dim") or hidden // heads)
    theta = float(config.get("rope_theta") or rope.get("rope_theta") or 10000.0)
    shape = AttentionShape(
        vocab_size=int(_needed(config, "vocab_size")),
        hidden_size=hidden,
        num_layers=int(_needed(config, "num_hidden_layers")),
        num_heads=heads,
        num_key_heads=int(config.get("num_key_value_heads") or heads),
        head_size=head_size,
        wide_size=int(_needed(config, "intermediate_size")),
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        inverse_frequencies=inverse_frequencies(head_size, theta, rope),
    )
    return Architecture(
        name=known,
        shape=shape,
        biases=known == "qwen2",
        tied=bool(config.get("tie_word_embeddings", False)),
        max_context_tokens=int(config.get("max_position_embeddings", 2048)),
    )


def _check_options(config: Mapping[str, Any]) -> None:
    """Options that would change the mathematics and are not implemented."""
    if (act := config.get("hidden_act", "silu")) != "silu":
        raise SourceError(f"config.json has hidden_act {act!r}; only 'silu' is implemented")
    for name in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if config.get(name):
            raise SourceError(f"config.json has {name} true, which is not implemented")
    if config.get("quantization_config"):
        raise SourceError("config.json has a quantization_config; use the folder in 16 or 32 bit")


def _dialogue(folder: Path, config: Mapping[str, Any], vocab_size: int) -> Dialogue:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise SourceError(f"{folder} has no tokenizer.json; save the tokenizer with the 'tokenizers' library there")
    settings = _json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    largest = _largest_id(path)
    if largest >= vocab_size:
        raise SourceError(f"tokenizer.json has an id {largest}, and the model {vocab_size} embeddings; it does not fit")
    stops = config.get("eos_token_id")
    if (folder / "generation_config.json").is_file():
        stops = _json(folder / "generation_config.json").get("eos_token_id", stops)
    return Dialogue(
        tokenizer=path.read_bytes(),
        chat_template=_template(folder, settings),
        stop_tokens=tuple(sorted({int(s) for s in ([stops] if isinstance(stops, int) else stops or [])})),
        bos_token=_text(settings.get("bos_token")),
        eos_token=_text(settings.get("eos_token")),
    )


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text("utf-8")
    template = settings.get("chat_template") or ""
    if isinstance(template, list):
        template = next((one["template"] for one in template if one.get("name") == "default"), "")
    return str(template)


def _largest_id(path: Path) -> int:
    raw = _json(path)
    vocabulary = raw.get("model", {}).get("vocab", {})
    plain = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    return max([*plain, *(token["id"] for token in raw.get("added_tokens", []))], default=-1)


def _identity(folder: Path, config: Mapping[str, Any], files: tuple[str, ...]) -> Identity:
    sums = {}
    for name in files:
        with (folder / name).open("rb") as file:
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256("".join(sums.values()).encode()).hexdigest()
    return Identity(
        name=str(config.get("_name_or_path") or folder.resolve().name),
        licence=_licence(folder),
        files=MappingProxyType(sums),
        fingerprint=next(iter(sums.values())) if len(sums) == 1 else whole,
    )


def _licence(folder: Path) -> str:
    """The licence that the source's model card states in its header."""
    card = folder / "README.md"
    if not card.is_file():
        return "not stated"
    for line in card.read_text("utf-8", errors="replace").splitlines()[:60]:
        if line.startswith("license:"):
            return line.removeprefix("license:").strip() or "not stated"
    return "not stated"


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, FileNotFoundError) as error:
        raise SourceError(f"{path.name} is not a whole safetensors file ({error}); fetch it again") from error


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise SourceError(f"{path.parent} has no {path.name}; it is no Hugging Face folder")
    try:
        found = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{path.name} is not JSON ({error}); fetch it again") from error
    if not isinstance(found, dict):
        raise SourceError(f"{path.name} holds no object; fetch it again")
    return found


def _needed(config: Mapping[str, Any], key: str) -> Any:
    if config.get(key) is None:
        raise SourceError(f"config.json lacks {key}; it is no whole configuration")
    return config[key]


def _text(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
