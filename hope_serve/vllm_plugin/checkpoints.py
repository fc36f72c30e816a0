"""Checkpoints of this project as vLLM reads them: a config parser and a weight loader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.base_loader import BaseModelLoader
from vllm.transformers_utils.config import register_config_parser
from vllm.transformers_utils.config_parser_base import ConfigParserBase

from hope_serve.model.attention_checkpoint import read_attention_config
from hope_serve.model.attention_model import load_attention
from hope_serve.model.checkpoint import CONFIG, planned_config
from hope_serve.model.load import is_attention
from hope_serve.model.words import attention_words, titans_words
from hope_serve.vllm_plugin import FORMAT


class HopeVllmConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """A checkpoint's config in the words that vLLM asks for.

    part, memory_rank, memory_dtype: of attention, the memory part's file, its rank, and what slots hold memories in.
    run_device, state_dtype: of Titans, where they run, and in what their matrices are kept.
    """

    model_type = "hope"

    def __init__(
        self,
        part: str = "",
        memory_rank: int = 1,
        memory_dtype: str = "float16",
        run_device: str = "cpu",
        state_dtype: str = "auto",
        **words: Any,
    ) -> None:
        self.part, self.memory_rank, self.memory_dtype = part, memory_rank, memory_dtype
        self.run_device, self.state_dtype = run_device, state_dtype
        super().__init__(**words)


class HopeConfigParser(ConfigParserBase):  # type: ignore[misc]
    """``config_format="hope"``."""

    def parse(self, model: str | Path, trust_remote_code: bool, **_: Any) -> tuple[dict[str, Any], HopeVllmConfig]:  # noqa: ARG002
        """The config of a checkpoint's folder."""
        folder = Path(model)
        if is_attention(folder):
            words = attention_words(read_attention_config(folder / CONFIG))
        else:
            words = titans_words(planned_config(folder))
        return words, HopeVllmConfig(**words)


class HopeModelLoader(BaseModelLoader):  # type: ignore[misc]
    """``load_format="hope"``: every byte is checked, and the memory part's start merged, before a weight is placed."""

    def download_model(self, model_config: Any) -> None:
        """Checkpoints are folders."""

    @torch.no_grad()
    def load_weights(self, model: Any, model_config: Any) -> None:
        """Fill the model's parameters; each must be met once."""
        config, folder = model_config.hf_config, Path(model_config.model)
        if hasattr(model, "load_folder"):
            model.load_folder(folder)
            return
        loaded = model.load_weights(_attention_tensors(folder, config))
        tied = {"head.weight"} if config.tie_word_embeddings else set()
        if missing := {name for name, _ in model.named_parameters()} - loaded - tied:
            raise ValueError(f"the checkpoint {folder} fills no {min(missing)}")


def register_formats() -> None:
    """Tell vLLM of both."""
    register_config_parser(FORMAT)(HopeConfigParser)
    register_model_loader(FORMAT)(HopeModelLoader)


def _attention_tensors(folder: Path, config: Any) -> Iterator[tuple[str, Tensor]]:
    """The base with its part's start merged in, by the names of ``HopeAttentionForCausalLM``."""
    model = load_attention(folder, Path(config.part) if config.part else None).model
    weights = model.weights
    yield "embedding.weight", weights.embedding
    yield "norm.weight", weights.norm
    if not config.tie_word_embeddings:
        yield "head.weight", weights.head
    for i, layer in enumerate(weights.layers.unbind()):
        matrices = layer._asdict() | {"down": model.down_and_projection[i]}
        bias = matrices.pop("bias")
        yield from ((f"layers.{i}.{name}.weight", tensor) for name, tensor in matrices.items())
        if bias is not None:
            yield f"layers.{i}.query_key_value.bias", bias
