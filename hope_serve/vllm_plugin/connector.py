"""Gives every request a slot and fills it, and hands its content back at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata, SupportsHMA
from vllm.v1.kv_cache_interface import MambaSpec

from hope_serve.vllm_plugin import memories
from hope_serve.vllm_plugin.handover import Handover, of
from hope_serve.vllm_plugin.slots import slot_layers


class Move(NamedTuple):
    """One request's slot, to be filled or read; ``block``: its first one in the cache."""

    request_id: str
    slot: int
    handover: Handover | None
    block: int = 0


@dataclass
class Moves(KVConnectorMetadata):  # type: ignore[misc]
    """What the worker does before a step."""

    fill: list[Move] = field(default_factory=list)
    read: list[Move] = field(default_factory=list)


class HopeSlotConnector(KVConnectorBase_V1, SupportsHMA):  # type: ignore[misc]
    """Slots are not zeroed when they change hands, so every new one is filled: with what was handed over, or afresh.

    Of attention they are this connector's own (``memories``); of Titans they are blocks that vLLM gives out.
    """

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        self._context = vllm_config.compilation_config.static_forward_context
        groups = kv_cache_config.kv_cache_groups if kv_cache_config else []
        self._group = next((i for i, g in enumerate(groups) if isinstance(g.kv_cache_spec, MambaSpec)), -1)
        self._free = list(range(1, vllm_config.scheduler_config.max_num_seqs + 1))
        self._held: dict[str, int] = {}
        self._num_blocks = kv_cache_config.num_blocks if kv_cache_config else 0
        self._moves, self._read = Moves(), set[str]()

    def register_kv_caches(self, kv_caches: dict[str, Tensor]) -> None:
        """vLLM's cache is there; no step that stays was captured yet."""
        if found := self._context.get(memories.CONTEXT_NAME):
            found.prepare(self._num_blocks, kv_caches.values())

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:  # noqa: ARG002
        """No token is skipped: a slot holds what was before the first."""
        return 0, False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:  # noqa: ARG002
        """A request got its slot, for the first time or anew after it was preempted."""
        ids, name = blocks.get_block_ids(), request.request_id
        if self._group >= 0:
            self._moves.fill.append(Move(name, ids[self._group][-1], of(request)))
            return
        if name not in self._held:
            self._held[name] = self._free.pop()
        self._moves.fill.append(Move(name, self._held[name], of(request), ids[0][0]))

    def _give_up(self, name: str) -> None:
        if slot := self._held.pop(name, 0):
            self._free.append(slot)

    def build_connector_meta(self, scheduler_output: Any) -> Moves:
        """What has come together since the last step; who was preempted begins anew later."""
        for name in scheduler_output.preempted_req_ids or ():
            self._give_up(name)
        moves, self._moves = self._moves, Moves()
        return moves

    def request_finished_all_groups(self, request: Any, block_ids: tuple[list[int], ...]) -> tuple[bool, None]:
        """A request's slot is kept until it was read, when somebody wants it."""
        self._give_up(request.request_id)
        handover, slots = of(request), block_ids[self._group] if block_ids and self._group >= 0 else []
        if handover is None or handover.saved is None or not slots:
            return False, None
        self._moves.read.append(Move(request.request_id, slots[-1], handover))
        return True, None

    def bind_connector_metadata(self, connector_metadata: Moves) -> None:
        """Reads and fills slots, before the step's forward pass and whatever else vLLM overlaps with it."""
        super().bind_connector_metadata(connector_metadata)
        for move in connector_metadata.read:
            self._hand_back(move)
        self._fill(connector_metadata.fill)

    @torch.no_grad()
    def _fill(self, moves: list[Move]) -> None:
        """One copy a request and part to the device, and one launch for all slots' rows there."""
        if (found := self._context.get(memories.CONTEXT_NAME)) and moves:
            given_now = [move.handover.loads[0] if move.handover else None for move in moves]
            found.fill([move.slot for move in moves], [move.block for move in moves], given_now)
            return
        layers = slot_layers(self._context)
        rows, contents = list[Tensor](), list[Tensor]()
        for move in moves:
            for part in range(len(layers[0].parts)) if layers else ():
                given = move.handover.loads[part] if move.handover else None
                kept = [layer.kv_cache[part][move.slot] for layer in layers]
                if given is None:
                    torch._foreach_zero_(kept)
                else:
                    rows += kept
                    contents += given.to(kept[0].device, kept[0].dtype, non_blocking=True).unbind(0)
        if rows:
            torch._foreach_copy_(rows, contents)

    @torch.no_grad()
    def _hand_back(self, move: Move) -> None:
        layers = slot_layers(self._context)
        assert move.handover is not None and move.handover.saved is not None
        kept = [torch.stack([la.kv_cache[p][move.slot] for la in layers]).cpu() for p in range(len(layers[0].parts))]
        self._read.add(move.request_id)
        move.handover.saved(tuple(kept))

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:  # noqa: ARG002
        """Requests whose slots were read and may go."""
        done, self._read = self._read, set()
        return done or None, None

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Everything was loaded when the metadata came."""

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing is under way."""

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        """Keys and values stay where they are."""

    def wait_for_save(self) -> None:
        """Nothing is under way."""
