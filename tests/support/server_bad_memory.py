"""What must be refused of lessons and of what is asked of memories."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from grpc import StatusCode
from support.server_vector import BAD, LIMIT, MISSING, Vector, ids

from hope_serve.pb.hope.v1 import adaptation_pb2, inference_pb2, memory_pb2


def memory_vectors() -> list[Vector]:
    """AdaptationService and MemoryService."""
    return [*_adapt(), *_memory()]


def _adapt() -> Iterator[Vector]:
    options, source = adaptation_pb2.AdaptOptions, adaptation_pb2.Source
    late = source()
    late.time.seconds = 2**60
    for name, fields, code, words in (
        ("nobody", {"user_id": ""}, BAD, ("user_id", "0", "256")),
        ("no request_id", {"request_id": ""}, BAD, ("request_id", "0", "64")),
        ("long request_id", {"request_id": "x" * 65}, BAD, ("request_id", "65", "64")),
        ("no input", {"nothing": 1}, BAD, ("input", "text, token_ids, messages")),
        ("empty text", {"text": ""}, BAD, ("text", "empty")),
        ("too long a text", {"text": "x y " * LIMIT}, BAD, ("input", str(LIMIT))),
        ("one token", {"token_ids": ids(20)}, BAD, ("tokens", "1", "2")),
        ("unknown id", {"token_ids": ids(20, 5000)}, BAD, ("token_ids[1]", "5000")),
        ("reused request_id", {"request_id": "known"}, StatusCode.ALREADY_EXISTS, ("request",)),
        ("stale version", {"expected_version": 0}, StatusCode.ABORTED, ("expected_version", "0", "1")),
        ("version to come", {"expected_version": 7}, StatusCode.ABORTED, ("expected_version", "7", "1")),
        ("negative version", {"expected_version": -1}, BAD, ("expected_version", "-1")),
        ("unknown level", {"options": options(levels=[7])}, BAD, ("options.levels", "7")),
        ("a level twice", {"options": options(levels=[0, 0])}, BAD, ("options.levels", "twice")),
        ("NaN rate", {"options": options(learning_rate_scale=math.nan)}, BAD, ("options.learning_rate_scale", "nan")),
        ("high rate", {"options": options(learning_rate_scale=11)}, BAD, ("options.learning_rate_scale", "11", "10")),
        ("negative rate", {"options": options(learning_rate_scale=-1)}, BAD, ("options.learning_rate_scale", "-1")),
        ("no pass", {"options": options(passes=0)}, BAD, ("options.passes", "0", "1")),
        ("many passes", {"options": options(passes=17)}, BAD, ("options.passes", "17", "16")),
        ("NaN norm", {"options": options(max_update_norm=math.nan)}, BAD, ("options.max_update_norm", "nan")),
        ("negative norm", {"options": options(max_update_norm=-1)}, BAD, ("options.max_update_norm", "-1")),
        ("unknown mode", {"options": options(mode=99)}, BAD, ("options.mode", "99")),
        ("long source", {"source": source(id="x" * 257)}, BAD, ("source.id", "257", "256")),
        ("long uri", {"source": source(uri="x" * 2049)}, BAD, ("source.uri", "2049", "2048")),
        ("far future", {"source": late}, BAD, ("source.time",)),
    ):
        yield Vector(f"adapt: {name}", "AdaptationService/Adapt", _message(**fields), code, words)


def _memory() -> Iterator[Vector]:
    back = {"user_id": "ann", "to_version": 1, "request_id": "bad"}
    fork = {"user_id": "ann", "target_user_id": "twin", "request_id": "bad"}

    def probe(**content: Any) -> Any:
        return memory_pb2.Probe(text="tea", continuation=inference_pb2.Continuation(**content))

    for method, fields, code, words in (
        ("GetMemory", {}, BAD, ("user_id",)),
        ("GetMemory", {"user_id": "nobody"}, MISSING, ("memory",)),
        ("GetMemory", {"user_id": "ann", "version": 0}, BAD, ("version", "0")),
        ("GetMemory", {"user_id": "ann", "version": 99}, MISSING, ("99",)),
        ("ListMemories", {"page_size": 0}, BAD, ("page_size", "0", "[1, 1000]")),
        ("ListMemories", {"page_size": 1001}, BAD, ("page_size", "1001", "1000")),
        ("ListMemories", {"page_token": "no such page"}, BAD, ("page_token",)),
        ("ListVersions", {}, BAD, ("user_id",)),
        ("ListVersions", {"user_id": "nobody"}, MISSING, ("memory",)),
        ("RollbackMemory", back | {"user_id": ""}, BAD, ("user_id",)),
        ("RollbackMemory", back | {"request_id": ""}, BAD, ("request_id",)),
        ("RollbackMemory", back | {"to_version": 0}, BAD, ("to_version", "0")),
        ("RollbackMemory", back | {"to_version": 99}, MISSING, ("99",)),
        ("RollbackMemory", back | {"user_id": "nobody"}, MISSING, ()),
        ("RollbackMemory", back | {"expected_version": 7}, StatusCode.ABORTED, ("7", "1")),
        ("RollbackMemory", back | {"request_id": "known"}, StatusCode.ALREADY_EXISTS, ("request",)),
        ("ForkMemory", fork | {"user_id": ""}, BAD, ("user_id",)),
        ("ForkMemory", fork | {"target_user_id": ""}, BAD, ("target_user_id",)),
        ("ForkMemory", fork | {"target_user_id": "ann"}, BAD, ("target_user_id", "ann")),
        ("ForkMemory", fork | {"request_id": ""}, BAD, ("request_id",)),
        ("ForkMemory", fork | {"version": 0}, BAD, ("version", "0")),
        ("ForkMemory", fork | {"version": 99}, MISSING, ("99",)),
        ("ForkMemory", fork | {"user_id": "nobody"}, MISSING, ("memory",)),
        ("EvaluateMemory", {"user_id": "ann"}, BAD, ("probes", "0")),
        ("EvaluateMemory", {"user_id": "ann", "probes": [probe()]}, BAD, ("probes[0]", "text, token_ids")),
        ("EvaluateMemory", {"user_id": "ann", "probes": [probe(token_ids=ids(5000))]}, BAD, ("probes[0]", "5000")),
        ("EvaluateMemory", {"user_id": "ann", "probes": [probe(text="x")], "versions": [99]}, MISSING, ("99",)),
        ("EvaluateMemory", {"user_id": "ann", "probes": [probe(text="x")], "versions": [-1]}, BAD, ("versions", "-1")),
        ("ExportMemory", {}, BAD, ("user_id",)),
        ("ExportMemory", {"user_id": "nobody"}, MISSING, ("memory",)),
        ("ExportMemory", {"user_id": "ann", "version": 0}, BAD, ("version", "0")),
        ("ExportMemory", {"user_id": "ann", "version": 99}, MISSING, ("99",)),
        ("ExportMemory", {"user_id": "ann", "passphrase": ""}, BAD, ("passphrase",)),
        ("WarmMemory", {}, BAD, ("user_id",)),
        ("WarmMemory", {"user_id": "ann", "min_version": 0}, BAD, ("min_version", "0")),
        ("WarmMemory", {"user_id": "ann", "min_version": 99}, MISSING, ("99",)),
        ("DeleteMemory", {}, BAD, ("user_id",)),
        ("DeleteMemory", {"user_id": "nobody"}, MISSING, ()),
        ("DeleteSession", {"session_id": "s"}, BAD, ("user_id",)),
        ("DeleteSession", {"user_id": "ann"}, BAD, ("session_id", "0", "128")),
    ):
        raw = getattr(memory_pb2, f"{method}Request")(**fields).SerializeToString()
        yield Vector(f"memory: {method} {_shown(fields)}", f"MemoryService/{method}", raw, code, words)


def _message(**fields: Any) -> bytes:
    named = {"user_id": "ann", "request_id": "bad"} | fields
    if not named.keys() & {"text", "token_ids", "messages", "nothing"}:
        named["text"] = "tea"
    named.pop("nothing", None)
    return adaptation_pb2.AdaptRequest(**named).SerializeToString()


def _shown(fields: dict[str, Any]) -> str:
    return " ".join(f"{name}={' '.join(str(value).split())}" for name, value in fields.items())
