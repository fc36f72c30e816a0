"""Every RPC with numbers at the ends of their ranges, alone and in pairs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message as Pb

from hope_serve.pb.hope.v1 import adaptation_pb2, inference_pb2, memory_pb2

USER = "zoe"
"""Whose memory these calls change."""
LIMIT = 64
"""Tokens of a prompt or a lesson on the server of these tests, whose slots are 8."""
VOCAB = 382
LEAST = 5e-324
FAR = 2**62


NAMED = (
    "AdaptationService/Adapt",
    "AdaptationService/AdaptStream",
    "MemoryService/RollbackMemory",
    "MemoryService/ForkMemory",
)
"""Methods that want a request id, which must be new."""


@dataclass(frozen=True)
class Kind:
    """A method, a message that it serves, and the extremes of its fields: JSON values by dotted path."""

    method: str
    good: Pb
    extremes: dict[str, list[Any]] = field(default_factory=dict)
    most: int = 60

    def messages(self, seed: int, share: float = 1.0) -> Iterator[tuple[str, Pb]]:
        """The message as it is, with each extreme alone, and with pairs of them: ``most``, drawn by ``seed``.

        ``share``: of the pairs. Messages of another share are other calls.
        """
        single = [(path, value) for path, values in self.extremes.items() for value in values]
        pairs = [pair for pair in itertools.combinations(single, 2) if pair[0][0] != pair[1][0]]
        random.Random(seed).shuffle(pairs)
        for i, changes in enumerate([(), *((one,) for one in single), *pairs[: int(self.most * share)]]):
            message = self._changed(changes)
            if self.method in NAMED:
                message.request_id = f"{self.method} {i} of {share}"  # type: ignore[attr-defined]
            yield f"{self.method} {dict(changes)}"[:200], message

    def _changed(self, changes: tuple[tuple[str, Any], ...]) -> Pb:
        tree = json_format.MessageToDict(self.good, preserving_proto_field_name=True)
        for path, value in changes:
            *outer, name = path.split(".")
            at = tree
            for part in outer:
                at = at.setdefault(part, {})
            at[name] = value
        return json_format.ParseDict(tree, type(self.good)())


SAMPLING = {
    "sampling.temperature": [0, LEAST, 1e-46, 1e-38, 1e-5, 100],
    "sampling.top_p": [LEAST, 1e-46, 0.95, 1],
    "sampling.top_k": [0, 1, 2**31 - 1],
    "sampling.min_p": [LEAST, 0.05, 1],
    "sampling.repetition_penalty": [LEAST, 1e-40, 10],
    "sampling.presence_penalty": [-2, 2],
    "sampling.frequency_penalty": [-2, 2],
    "sampling.max_tokens": [1, 16],
    "sampling.min_tokens": [1, 2],
    "sampling.seed": [0, 2**32, 2**63 - 1],
    "sampling.n": [1, 8],
    "sampling.stop_token_ids": [[0, VOCAB - 1], list(range(16))],
    "sampling.logit_bias": [
        {"0": 100},
        {str(VOCAB - 1): LEAST},
        {str(token): -100 for token in range(VOCAB)},
        {str(token): 100 for token in range(VOCAB)},
    ],
    "sampling.logprobs": [0, 20],
    "sampling.ignore_eos": [False],
}
PROMPT = {"token_ids": [{"ids": [0]}, {"ids": [VOCAB - 1]}, {"ids": [7] * LIMIT}]}
MEMORY = {"memory.min_version": [1, FAR], "memory.exact_version": [1, FAR], "memory.on_missing": [2]}
ADAPT = {
    "token_ids": [{"ids": [0, 0]}, {"ids": [VOCAB - 1] * LIMIT}],
    "expected_version": [0, FAR],
    "options.learning_rate_scale": [0, LEAST, 1e-40, 10],
    "options.passes": [1, 16],
    "options.max_update_norm": [LEAST, 1e-40, 1e6],
    "options.levels": [[0], [1, 0]],
    "options.mode": [2, 3],
    "source.time": ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z"],
}


def kinds() -> list[Kind]:
    """Every method of the contract but ImportMemory, which takes bytes; AdaptStream as the lesson of its one part."""
    short = inference_pb2.SamplingParams(max_tokens=2, ignore_eos=True, seed=1)
    ids = {"ids": [20, 30, 40]}
    generate = inference_pb2.GenerateRequest(token_ids=ids, sampling=short, user_id=USER)
    sampling = {f"request.{path}": values for path, values in SAMPLING.items()}
    part = inference_pb2.Continuation(token_ids={"ids": [50, 60]})
    probe = memory_pb2.Probe(continuation=inference_pb2.Continuation(token_ids={"ids": [50, 60, 70]}))
    lesson = adaptation_pb2.AdaptRequest(user_id=USER, request_id="extreme", token_ids={"ids": [9] * 20})
    parts = [[{"token_ids": {"ids": [0]}}] * 256, [{"token_ids": {"ids": [7] * (LIMIT - 3)}}]]
    return [
        Kind("InferenceService/Generate", generate, SAMPLING | PROMPT | MEMORY | {"priority": [-100, 100]}, most=320),
        Kind("InferenceService/GenerateStream", inference_pb2.GenerateStreamRequest(request=generate), sampling, 40),
        Kind(
            "InferenceService/Score",
            inference_pb2.ScoreRequest(token_ids=ids, continuations=[part], user_id=USER),
            PROMPT | MEMORY | {"continuations": parts},
            30,
        ),
        Kind(
            "InferenceService/Tokenize",
            inference_pb2.TokenizeRequest(text="tea"),
            {"text": ["\u0000", "\U0010ffff", "tea " * 5000]},
        ),
        Kind(
            "InferenceService/Detokenize",
            inference_pb2.DetokenizeRequest(token_ids=[20]),
            {"token_ids": [[0], [VOCAB - 1], list(range(VOCAB)) * 50]},
        ),
        Kind("InferenceService/GetModel", inference_pb2.GetModelRequest()),
        Kind("AdaptationService/Adapt", lesson, ADAPT, most=80),
        Kind("AdaptationService/AdaptStream", lesson, ADAPT, most=40),
        Kind("MemoryService/GetMemory", memory_pb2.GetMemoryRequest(user_id=USER), {"version": [1, FAR]}),
        Kind("MemoryService/ListMemories", memory_pb2.ListMemoriesRequest(), {"page_size": [1, 1000]}),
        Kind("MemoryService/ListVersions", memory_pb2.ListVersionsRequest(user_id=USER)),
        Kind(
            "MemoryService/RollbackMemory",
            memory_pb2.RollbackMemoryRequest(user_id=USER, request_id="back", to_version=1),
            {"to_version": [1, FAR], "expected_version": [1, FAR]},
        ),
        Kind(
            "MemoryService/ForkMemory",
            memory_pb2.ForkMemoryRequest(user_id=USER, target_user_id="twin", request_id="fork"),
            {"version": [1, FAR]},
        ),
        Kind(
            "MemoryService/EvaluateMemory",
            memory_pb2.EvaluateMemoryRequest(user_id=USER, probes=[probe]),
            {"versions": [[1], [FAR]], "probes": [[{"continuation": {"token_ids": {"ids": [0]}}}] * 256]},
        ),
        Kind("MemoryService/ExportMemory", memory_pb2.ExportMemoryRequest(user_id=USER), {"version": [1, FAR]}),
        Kind("MemoryService/WarmMemory", memory_pb2.WarmMemoryRequest(user_id=USER), {"min_version": [1, FAR]}),
        Kind("MemoryService/DeleteSession", memory_pb2.DeleteSessionRequest(user_id=USER, session_id="s")),
        Kind("MemoryService/DeleteMemory", memory_pb2.DeleteMemoryRequest(user_id="twin")),
    ]


def history(lesson: adaptation_pb2.AdaptRequest) -> Iterator[adaptation_pb2.AdaptStreamRequest]:
    """The same lesson as a history of one part."""
    tree = json_format.MessageToDict(lesson, preserving_proto_field_name=True)
    part = {"token_ids": tree.pop("token_ids")}
    for event in ({"start": tree}, {"part": part}, {"end": {"num_parts": 1}}):
        yield json_format.ParseDict(event, adaptation_pb2.AdaptStreamRequest())
