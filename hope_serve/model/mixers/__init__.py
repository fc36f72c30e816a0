"""The kinds of sequence mixer: each owns its weights' form, its state and its ops."""

from hope_serve.model.mixers.base import ClockState, Mixer, SlotClocks, split_heads
from hope_serve.model.mixers.linear import LinearMemory
from hope_serve.model.mixers.mlp import MlpMemory
from hope_serve.model.mixers.separate import SeparateMemories

__all__ = ["ClockState", "LinearMemory", "Mixer", "MlpMemory", "SeparateMemories", "SlotClocks", "split_heads"]
