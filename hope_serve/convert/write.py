"""Writes a source as a checkpoint of this project: one layer at a time, the disk asked first, a card beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from hope_serve.chat_template import ChatTemplate, ChatTemplateError
from hope_serve.convert.source import BIASES, Source, SourceError, check_names, checked, expected_tensors
from hope_serve.model.attention_checkpoint import (
    AttentionConfig,
    Dtype,
    SourceNote,
    save_attention_checkpoint,
    stored_bytes,
)

SPARE_BYTES = 64 * 2**20


def convert(source: Source, folder: Path, *, dtype: Dtype = "float32", name: str = "") -> str:
    """Write ``source`` to ``folder`` and return the checkpoint's fingerprint.

    Args:
        name: what the checkpoint is called; empty is the source's own name.

    Raises:
        SourceError: the folder is not empty, the disk is too small, or the source is not what it says it is.
    """
    config = _config(source, dtype, name)
    _check_room(folder, stored_bytes(config) + len(source.dialogue.tokenizer))
    _check_tokenizer(source)
    _check_template(source)
    check_names(frozenset(expected_tensors(source.architecture)), source.tensors.names())
    return save_attention_checkpoint(
        folder,
        config,
        _tensors(source, dtype),
        tokenizer=source.dialogue.tokenizer,
        chat_template=source.dialogue.chat_template,
        card=model_card(source, config),
    )


def model_card(source: Source, config: AttentionConfig) -> str:
    """Markdown: what came from where, and under which licence."""
    identity, shape = source.identity, source.architecture.shape
    files = "\n".join(f"- `{name}` sha256 {value}" for name, value in identity.files.items())
    template = "the source's own" if source.dialogue.chat_template else "none; it continues text and does not chat"
    return f"""# {config.name}

{identity.name}, converted by `hope-serve convert`. With an empty memory it is the source model; its MLPs are the levels
that learn.

- licence of the weights, as the source states it: {identity.licence}
- architecture {source.architecture.name}: hidden {shape.hidden_size}, {shape.num_layers} layers,
  {shape.num_heads} heads ({shape.num_key_heads} of keys), MLP {shape.wide_size}, vocabulary {shape.vocab_size}
- context: {source.architecture.max_context_tokens} tokens; matrices stored as {config.dtype}
- tokenizer: the source's; chat template: {template}

Made from

{files}

Memory parts name this base by the fingerprint {identity.fingerprint}.
"""


def _config(source: Source, dtype: Dtype, name: str) -> AttentionConfig:
    shape, dialogue, identity = source.architecture.shape, source.dialogue, source.identity
    return AttentionConfig(
        name=name or identity.name,
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_layers=shape.num_layers,
        num_heads=shape.num_heads,
        num_key_heads=shape.num_key_heads,
        head_size=shape.head_size,
        wide_size=shape.wide_size,
        norm_eps=shape.norm_eps,
        inverse_frequencies=shape.inverse_frequencies,
        biases=source.architecture.biases,
        tied=source.architecture.tied,
        max_context_tokens=source.architecture.max_context_tokens,
        stop_tokens=dialogue.stop_tokens,
        source=SourceNote(name=identity.name, licence=identity.licence, fingerprint=identity.fingerprint),
        bos_token=dialogue.bos_token,
        eos_token=dialogue.eos_token,
        dtype=dtype,
    )


def _tensors(source: Source, dtype: Dtype) -> Iterator[tuple[str, Tensor]]:
    """The checkpoint's tensors in turn, already in their stored width."""
    expected, stored = expected_tensors(source.architecture), getattr(torch, dtype)

    def read(name: str) -> Tensor:
        return checked(name, source.tensors.read(name), expected[name])

    for name in ("embedding", "norm", *(() if source.architecture.tied else ("head",))):
        yield name, _narrowed(name, read(name), stored)
    for layer in range(source.architecture.shape.num_layers):
        for name, parts in _FUSED.items():
            tensor = torch.cat([read(f"{layer}.{part}") for part in parts])
            yield f"{layer}.{name}", _narrowed(f"{layer}.{name}", tensor, stored)
        if source.architecture.biases:
            yield f"{layer}.bias", torch.cat([read(f"{layer}.{name}_bias") for name in BIASES])


_FUSED = {
    "attention_norm": ("attention_norm",),
    "query_key_value": ("query", "key", "value"),
    "output": ("output",),
    "mlp_norm": ("mlp_norm",),
    "gate_up": ("gate", "up"),
    "down": ("down",),
}


def _narrowed(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.dim() == 1:
        return tensor
    narrow = tensor.to(dtype)
    if not torch.isfinite(narrow).all():
        raise SourceError(f"tensor {name} holds values too large for {dtype}; convert with --dtype bfloat16 or float32")
    return narrow


def _check_room(folder: Path, needed: int) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SourceError(f"{folder} exists and is not an empty folder; name another, or remove it")
    above = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(above).free
    if free < needed + SPARE_BYTES:
        raise SourceError(
            f"{above} has {free / 2**20:,.0f} MiB free; this checkpoint takes {needed / 2**20:,.0f} MiB "
            f"and {SPARE_BYTES / 2**20:.0f} MiB are left spare: make room, or choose --dtype bfloat16"
        )


def _check_tokenizer(source: Source) -> None:
    try:
        size = Tokenizer.from_str(source.dialogue.tokenizer.decode()).get_vocab_size(with_added_tokens=True)
    except Exception as error:
        raise SourceError(f"the source's tokenizer.json cannot be read ({error}); fetch it again") from error
    if size > source.architecture.shape.vocab_size:
        raise SourceError(
            f"the tokenizer has {size} tokens and the model {source.architecture.shape.vocab_size} embeddings; "
            "it is another model's"
        )


def _check_template(source: Source) -> None:
    if not source.dialogue.chat_template:
        return
    try:
        ChatTemplate(source.dialogue.chat_template)
    except ChatTemplateError as error:
        raise SourceError(str(error)) from error
