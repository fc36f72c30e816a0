"""A checkpoint of the attention kind as a source again: what a memory part is trained on."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from torch import Tensor

from hope_serve.convert.source import Architecture, Dialogue, Identity, Source, SourceError
from hope_serve.model.attention_checkpoint import (
    TEMPLATE,
    WEIGHTS,
    AttentionCheckpoint,
    AttentionCheckpointError,
    load_attention_checkpoint,
)
from hope_serve.model.parts import matrix_shapes

_FUSED = MappingProxyType(
    {"query_key_value": ("query", "key", "value"), "gate_up": ("gate", "up"), "bias": ("query", "key", "value")}
)


def read_checkpoint(folder: Path) -> Source:
    """Open a converted checkpoint; its identity is that of the source it was made from.

    Raises:
        SourceError: a file is missing or altered.
    """
    try:
        checkpoint = load_attention_checkpoint(folder)
    except AttentionCheckpointError as error:
        raise SourceError(str(error)) from error
    config = checkpoint.config
    return Source(
        architecture=Architecture(
            name="attention",
            shape=config.shape(),
            biases=config.biases,
            tied=config.tied,
            max_context_tokens=config.max_context_tokens,
        ),
        tensors=CheckpointTensors(checkpoint),
        dialogue=Dialogue(
            tokenizer=checkpoint.tokenizer_path.read_bytes(),
            chat_template=(folder / TEMPLATE).read_text("utf-8"),
            stop_tokens=config.stop_tokens,
            bos_token=config.bos_token,
            eos_token=config.eos_token,
        ),
        identity=Identity(
            name=config.source.name,
            licence=config.source.licence,
            files=MappingProxyType({WEIGHTS: checkpoint.fingerprint}),
            fingerprint=config.source.fingerprint,
        ),
    )


class CheckpointTensors:
    """The checkpoint's matrices, taken apart again."""

    def __init__(self, checkpoint: AttentionCheckpoint) -> None:
        weights, sizes = checkpoint.weights, matrix_shapes(checkpoint.config.shape())
        self._tensors: dict[str, Tensor] = {"embedding": weights.embedding, "norm": weights.norm}
        if not checkpoint.config.tied:
            self._tensors["head"] = weights.head
        for index, layer in enumerate(weights.layers.unbind()):
            for field, tensor in layer._asdict().items():
                if tensor is None:
                    continue
                names = _FUSED.get(field, (field,))
                ends = "_bias" if field == "bias" else ""
                parts = tensor.split([sizes[name][0] for name in names]) if field in _FUSED else (tensor,)
                self._tensors |= {f"{index}.{name}{ends}": part for name, part in zip(names, parts, strict=True)}

    def names(self) -> frozenset[str]:
        """See ``Tensors.names``."""
        return frozenset(self._tensors)

    def read(self, name: str) -> Tensor:
        """See ``Tensors.read``."""
        return self._tensors[name]
