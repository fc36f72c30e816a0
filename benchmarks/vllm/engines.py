"""The engines that are driven: vLLM on its own Llama, vLLM with users' weights, and this project's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.vllm.driving import BATCHES, CONTEXT, STEP_TOKENS
from benchmarks.vllm.models import SHAPES, memories, write_config
from hope_serve.config import EngineConfig
from hope_serve.engine_config import vllm_environment

CARD = torch.cuda.is_available()
DEVICE = "cuda" if CARD else "cpu"
"""Without one only the way is tried, with the smallest shape."""


class VllmDriven:
    """vLLM's engine, stepped in this process.

    Args:
        own: every user has weights of their own.
        eager: steps are launched one by one instead of replayed.
        memory_share: of the card, for weights and cache.
        cards: how many share every layer.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        own: bool,
        users: int,
        eager: bool = False,
        memory_share: float = 0.85,
        cards: int = 1,
    ) -> None:
        vllm_environment()
        from vllm import EngineArgs
        from vllm.v1.attention.backends.registry import AttentionBackendEnum
        from vllm.v1.engine.llm_engine import LLMEngine
        from vllm.v1.executor import Executor

        from hope_serve.vllm_plugin import CONNECTOR, register

        register()
        write_config(folder, name)
        self.name = ("vLLM, own weights" if own else "vLLM, plain") + (f", {cards} cards" if cards > 1 else "")
        self._own, self._rows = own, memories(name, users, pinned=CARD) if own else []
        shape = SHAPES[name]
        ours = {
            "model": str(folder),
            "config_format": "hope",
            "kv_transfer_config": {"kv_connector": CONNECTOR, "kv_role": "kv_both"},
            "hf_overrides": {"part": "", "memory_rank": shape.rank, "memory_dtype": "float16"},
        }
        settings = EngineArgs(
            **(ours if own else {"model": str(folder / "llama")}),
            load_format="dummy",
            skip_tokenizer_init=True,
            dtype="float16" if CARD else "float32",
            max_model_len=CONTEXT,
            max_num_seqs=max(BATCHES),
            max_num_batched_tokens=STEP_TOKENS,
            enable_prefix_caching=False,
            async_scheduling=False,
            generation_config="vllm",
            distributed_executor_backend="uni" if cards == 1 else "mp",
            tensor_parallel_size=cards,
            gpu_memory_utilization=memory_share,
            **({"attention_backend": AttentionBackendEnum.TRITON_ATTN} if CARD else {"kv_cache_memory_bytes": 2**28}),
            disable_log_stats=True,
            compilation_config={
                "mode": 0,
                "cudagraph_mode": "FULL_DECODE_ONLY" if CARD and not eager else "NONE",
                "cudagraph_capture_sizes": list(BATCHES),
            },
        ).create_engine_config()
        self._vllm = LLMEngine(settings, Executor.get_class(settings), log_stats=False, multiprocess_mode=False)
        cache = self._vllm.vllm_config.cache_config
        self.capacity = int(cache.num_gpu_blocks or 0) * int(cache.block_size)
        self.slots, self.context, self.reads_beside = max(BATCHES), CONTEXT, False
        self.ended: set[str] = set()
        self._open: set[str] = set()
        self._count = 0

    @property
    def idle(self) -> bool:
        """See ``Driven.idle``."""
        return not self._open

    def add(self, prompt: list[int], max_tokens: int, user: int) -> str:
        """See ``Driven.add``."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        from hope_serve.vllm_plugin.handover import Handover, params

        extra = params(Handover(loads=[self._rows[user % len(self._rows)]])) if self._own else None
        asked = SamplingParams(
            temperature=0.0,
            max_tokens=max_tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args=extra,
            skip_clone=True,
        )
        self._count += 1
        self._vllm.add_request(str(self._count), {"prompt_token_ids": prompt}, asked)
        self._open.add(str(self._count))
        return str(self._count)

    def step(self) -> dict[str, int]:
        """See ``Driven.step``."""
        got = {}
        for output in self._vllm.step():
            got[output.request_id] = len(output.outputs[0].token_ids)
            if output.finished:
                self.ended.add(output.request_id)
                self._open.discard(output.request_id)
        return got

    def stop(self) -> None:
        """See ``Driven.stop``."""
        self._vllm.abort_request(list(self._open))
        self._open.clear()
        self._vllm.step()

    def close(self) -> None:
        """See ``Driven.close``."""
        self._vllm.engine_core.shutdown()


class NativeDriven:
    """This project's engine; a step is whatever came since the last look, at least one token."""

    def __init__(self, name: str, folder: Path, *, users: int, slots: int, context: int) -> None:
        from benchmarks.vllm.models import write_checkpoint
        from hope_serve.engine import NativeEngine, native_codec
        from hope_serve.metrics import Metrics
        from hope_serve.model.attention_model import load_attention

        self.name = "native"
        part = write_checkpoint(folder, name)
        loaded = load_attention(folder, part)
        config = EngineConfig(
            max_slots=slots,
            max_lessons=1,
            max_batch_tokens=STEP_TOKENS,
            max_prompt_tokens=context,
            max_context_tokens=context,
            max_queue_tokens=2**30,
        )
        self._runner = asyncio.Runner()
        self._engine = NativeEngine(loaded, config, Metrics(), device=DEVICE)
        form = native_codec(loaded, config, device=DEVICE).form
        self._rows = [row_of(form, row) for row in memories(name, users, pinned=False)]
        self._runner.run(self._engine.start())
        self.capacity, self.slots, self.context, self.reads_beside = slots * context, slots, context, True
        self.ended: set[str] = set()
        self._got: asyncio.Queue[str | Exception] = asyncio.Queue()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._count = 0

    @property
    def idle(self) -> bool:
        """See ``Driven.idle``."""
        return not self._tasks

    def add(self, prompt: list[int], max_tokens: int, user: int) -> str:
        """See ``Driven.add``."""
        self._count += 1
        name = str(self._count)
        task = self._draw(name, tuple(prompt), max_tokens, self._rows[user % len(self._rows)])
        self._tasks[name] = self._runner.get_loop().create_task(task)
        return name

    def step(self) -> dict[str, int]:
        """See ``Driven.step``."""
        return self._runner.run(self._heard())

    def stop(self) -> None:
        """See ``Driven.stop``."""
        self._runner.run(self._stopped())

    def close(self) -> None:
        """See ``Driven.close``."""
        self._runner.run(self._engine.close())
        self._runner.close()

    async def _heard(self) -> dict[str, int]:
        got: dict[str, int] = {}
        if self.idle and self._got.empty():
            return got
        name = await self._got.get()
        while True:
            if isinstance(name, Exception):
                raise name
            if name:
                got[name] = got.get(name, 0) + 1
            if len(got) >= len(self._tasks):
                return got
            try:
                name = await asyncio.wait_for(self._got.get(), 0.02)
            except TimeoutError:
                return got

    async def _stopped(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()
        while not self._got.empty():
            self._got.get_nowait()

    async def _draw(self, name: str, prompt: tuple[int, ...], max_tokens: int, memory: Tensor) -> None:
        from hope_serve.api import SamplingParams
        from hope_serve.api.engine import GenerateTask, TokenDrawn

        asked = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
        try:
            async for came in self._engine.generate(GenerateTask(prompt=prompt, sampling=asked, memory=memory)):
                for event in came:
                    if isinstance(event, TokenDrawn):
                        self._got.put_nowait(name)
        except Exception as error:  # noqa: BLE001  whoever waits for tokens hears of it
            self._got.put_nowait(error)
        self.ended.add(name)
        self._tasks.pop(name, None)
        self._got.put_nowait("")  # nobody's token: whoever waits for the last one looks again


def row_of(form: Any, memory: Tensor) -> Tensor:
    """A memory as the native engine takes it."""
    row = torch.zeros(form.warm_bytes - form.memory_bytes, dtype=torch.uint8, pin_memory=CARD)
    form.reading(row)["0.delta.outer"].copy_(memory)
    return row
