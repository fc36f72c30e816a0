"""A tokenizer.json rebuilt from what a GGUF file says of it: vocabulary, merges and the name of its pre-tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from hope_serve.convert.source import SourceError

_CONTROL, _USER_DEFINED = 3, 4
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def rebuild_tokenizer(name: str, fields: Mapping[str, Any]) -> bytes:
    """The tokenizer.json of a GGUF's fields.

    Raises:
        SourceError: a tokenizer other than byte-level BPE, or a pre-tokenizer that is not known.
    """
    kind, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2":
        raise SourceError(
            f"{name} has a tokenizer of kind {kind!r}; only byte-level BPE ('gpt2') can be rebuilt from GGUF: "
            "convert the Hugging Face folder, which brings its tokenizer.json"
        )
    if pre not in PRE_TOKENIZERS:
        raise SourceError(f"{name} has the pre-tokenizer {pre!r}; known are {', '.join(PRE_TOKENIZERS)}")
    tokens = [str(token) for token in fields["tokenizer.ggml.tokens"]]
    merges = [_pair(str(merge)) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: at for at, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=pre == "llama-bpe"))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    types = fields.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    tokenizer.add_special_tokens(_added(tokens, types, _CONTROL))
    tokenizer.add_tokens(_added(tokens, types, _USER_DEFINED))
    return tokenizer.to_str(pretty=True).encode()


def _pair(merge: str) -> tuple[str, str]:
    first, _, second = merge.partition(" ")
    return first, second


def _added(tokens: list[str], types: list[int], kind: int) -> list[AddedToken]:
    chosen = (token for token, of in zip(tokens, types, strict=True) if of == kind)
    return [AddedToken(token, special=kind == _CONTROL, normalized=False) for token in chosen]


def _digits_apart() -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])


def _by_pattern(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


PRE_TOKENIZERS: Mapping[str, Callable[[], pre_tokenizers.PreTokenizer]] = MappingProxyType(
    {
        "smollm": _digits_apart,
        "qwen2": lambda: _by_pattern(_QWEN2),
        "llama-bpe": lambda: _by_pattern(_LLAMA3),
        "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    }
)
