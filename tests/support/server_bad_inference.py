"""What must be refused of prompts, sampling, choices of memory, scores and raw bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from grpc import StatusCode
from support.server_vector import BAD, LIMIT, MISSING, VOCAB, Vector, generate, ids, turns

from hope_serve.pb.hope.v1 import inference_pb2


def inference_vectors() -> list[Vector]:
    """InferenceService."""
    return [*_prompts(), *_sampling(), *_generate(), *_score(), *_bytes()]


def _prompts() -> Iterator[Vector]:
    for name, fields, words in (
        ("no prompt", {"nothing": 1}, ("prompt", "text, token_ids, messages")),
        ("empty text", {"text": ""}, ("text", "empty")),
        ("no ids", {"token_ids": ids()}, ("token_ids", "empty")),
        ("no turns", {"messages": turns()}, ("messages", "empty")),
        ("nobody speaks", {"messages": turns((0, "hi"))}, ("messages[0].role", "not set")),
        ("unknown role", {"messages": turns((2, "hi"), (99, "hi"))}, ("messages[1].role", "99")),
        ("nothing said", {"messages": turns((2, ""))}, ("messages[0].text", "empty")),
        ("negative id", {"token_ids": ids(20, -1)}, ("token_ids[1]", "-1", str(VOCAB - 1))),
        ("id after the last", {"token_ids": ids(VOCAB)}, ("token_ids[0]", str(VOCAB), str(VOCAB - 1))),
        ("too many ids", {"token_ids": ids(*[20] * (LIMIT + 1))}, ("prompt", str(LIMIT + 1), str(LIMIT))),
        ("too long a text", {"text": "x y " * LIMIT}, ("prompt", str(LIMIT))),
        ("far too long a text", {"text": "x y " * 40_000}, ("prompt", str(LIMIT))),
        ("too long a turn", {"messages": turns((2, "x y " * LIMIT))}, ("prompt", str(LIMIT))),
    ):
        yield Vector(f"prompt: {name}", "InferenceService/Generate", generate(**fields), BAD, words)


def _sampling() -> Iterator[Vector]:
    many = dict.fromkeys(range(1025), 0.0)
    for name, value, words in (
        ("temperature", math.nan, ("nan", "[0.0, 100.0]")),
        ("temperature", math.inf, ("inf", "100.0")),
        ("temperature", -0.1, ("-0.1", "0.0")),
        ("temperature", 101.0, ("101.0", "100.0")),
        ("top_p", 0.0, ("0.0", "(0.0, 1.0]")),
        ("top_p", 1.5, ("1.5", "1.0")),
        ("top_p", math.nan, ("nan",)),
        ("top_k", -1, ("-1", "0")),
        ("min_p", 1.1, ("1.1", "1.0")),
        ("min_p", math.nan, ("nan",)),
        ("repetition_penalty", 0.0, ("0.0", "(0.0, 10.0]")),
        ("repetition_penalty", math.nan, ("nan",)),
        ("presence_penalty", 3.0, ("3.0", "2.0")),
        ("frequency_penalty", -math.inf, ("-inf", "-2.0")),
        ("max_tokens", 0, ("0", "1")),
        ("max_tokens", -5, ("-5", "1")),
        ("max_tokens", 2**21, (str(2**21), str(2**20))),
        ("min_tokens", -1, ("-1", "0")),
        ("min_tokens", 129, ("129", "128")),
        ("n", 0, ("0", "[1, 16]")),
        ("n", 17, ("17", "16")),
        ("n", 9, ("9", "8 slots")),
        ("seed", -1, ("-1", "0")),
        ("stop", ["x"] * 17, ("17", "16")),
        ("stop", [""], ("0", "1")),
        ("stop", ["x" * 257], ("257", "256")),
        ("stop_token_ids", [7] * 17, ("17", "16")),
        ("stop_token_ids", [VOCAB], (str(VOCAB),)),
        ("logit_bias", {VOCAB: 1.0}, (str(VOCAB),)),
        ("logit_bias", {7: math.nan}, ("nan", "100.0")),
        ("logit_bias", {7: 101.0}, ("101.0", "100.0")),
        ("logit_bias", many, ("1025", "1024")),
        ("logprobs", 21, ("21", "20")),
        ("logprobs", -1, ("-1", "0")),
    ):
        raw = generate(sampling=inference_pb2.SamplingParams(**{name: value}))
        shown = str(value)[:20]
        yield Vector(f"sampling: {name} {shown}", "InferenceService/Generate", raw, BAD, (f"sampling.{name}", *words))


def _generate() -> Iterator[Vector]:
    user, answer = (2, "hi"), (3, "ho")
    choice = inference_pb2.MemoryChoice
    for name, fields, code, words in (
        ("two versions", {"memory": choice(min_version=1, exact_version=1)}, BAD, ("min_version", "exact_version")),
        ("version 0", {"memory": choice(min_version=0)}, BAD, ("memory.min_version", "0")),
        ("negative version", {"memory": choice(exact_version=-1)}, BAD, ("memory.exact_version", "-1")),
        ("unknown on_missing", {"memory": choice(on_missing=99)}, BAD, ("memory.on_missing", "99")),
        ("nobody's memory", {"memory": choice(on_missing=2), "user_id": "nobody"}, MISSING, ("memory",)),
        ("a version to come", {"memory": choice(min_version=99), "user_id": "ann"}, MISSING, ("99",)),
        ("a version that never was", {"memory": choice(exact_version=99), "user_id": "ann"}, MISSING, ("99",)),
        ("long user_id", {"user_id": "x" * 257}, BAD, ("user_id", "257", "256")),
        ("NUL in user_id", {"user_id": "ann\0"}, BAD, ("user_id", "unprintable")),
        ("newline in user_id", {"user_id": "ann\nbob"}, BAD, ("user_id", "unprintable")),
        ("long session_id", {"user_id": "ann", "session_id": "x" * 129}, BAD, ("session_id", "129", "128")),
        ("session of nobody", {"session_id": "s"}, BAD, ("session_id", "user_id")),
        (
            "session of two",
            {"user_id": "ann", "session_id": "s", "sampling": inference_pb2.SamplingParams(n=2)},
            BAD,
            ("sampling.n", "2"),
        ),
        ("long request_id", {"request_id": "x" * 65}, BAD, ("request_id", "65", "64")),
        ("bell in request_id", {"request_id": "\a"}, BAD, ("request_id", "unprintable")),
        ("high priority", {"priority": 101}, BAD, ("priority", "101", "100")),
        ("unknown learn", {"learn": 99}, BAD, ("learn", "99")),
        ("learn for nobody", {"learn": 1, "messages": turns(user)}, BAD, ("learn", "user_id")),
        ("learn a text", {"learn": 1, "user_id": "ann"}, BAD, ("learn", "messages")),
        ("learn no question", {"learn": 1, "user_id": "ann", "messages": turns(user, answer)}, BAD, ("learn", "turn")),
        (
            "learn two answers",
            {
                "learn": 2,
                "user_id": "ann",
                "messages": turns(user),
                "sampling": inference_pb2.SamplingParams(n=2, max_tokens=2),
            },
            BAD,
            ("learn", "sampling.n", "2"),
        ),
        (
            "learn a long answer",
            {"learn": 2, "user_id": "ann", "messages": turns(user)},
            BAD,
            ("tokens", "limit"),
        ),
        (
            "learn without room in the id",
            {"learn": 1, "user_id": "ann", "messages": turns(user), "request_id": "x" * 60},
            BAD,
            ("request_id", "60", "58"),
        ),
    ):
        yield Vector(f"generate: {name}", "InferenceService/Generate", generate(**fields), code, words)
    empty = inference_pb2.GenerateStreamRequest().SerializeToString()
    yield Vector("stream: nothing", "InferenceService/GenerateStream", empty, BAD, ("prompt",))


def _score() -> Iterator[Vector]:
    def part(**content: Any) -> Any:
        return inference_pb2.Continuation(**content)

    for name, parts, words in (
        ("nothing to weigh", [], ("continuations", "0", "256")),
        ("too much to weigh", [part(text="x")] * 257, ("continuations", "257", "256")),
        ("an unset part", [part()], ("content", "text, token_ids")),
        ("an empty part", [part(text="")], ("text", "empty")),
        ("an unknown id", [part(token_ids=ids(5000))], ("token_ids[0]", "5000")),
        ("a long part", [part(token_ids=ids(*[20] * LIMIT))], ("continuations", str(LIMIT))),
    ):
        raw = inference_pb2.ScoreRequest(text="tea", continuations=parts).SerializeToString()
        yield Vector(f"score: {name}", "InferenceService/Score", raw, BAD, words)
    raw = inference_pb2.TokenizeRequest().SerializeToString()
    yield Vector("tokenize: nothing", "InferenceService/Tokenize", raw, BAD, ("input", "text, messages"))
    for token in (-1, VOCAB):
        raw = inference_pb2.DetokenizeRequest(token_ids=[7, token]).SerializeToString()
        yield Vector(f"detokenize: {token}", "InferenceService/Detokenize", raw, BAD, ("token_ids[1]", str(token)))


def _bytes() -> Iterator[Vector]:
    good = generate(text="hello there")
    for name, raw in (
        ("garbage", b"\xff" * 20),
        ("half a message", good[:-3]),
        ("a text that is not UTF-8", b"\x12\x02\xff\xfe"),
        ("a field of another type", b"\x0a\xff\xff\xff\xff\x7f"),
    ):
        words = ("request", f"{len(raw)} bytes")
        yield Vector(f"bytes: {name}", "InferenceService/Generate", raw, BAD, words)
    big = generate(text="x" * 2**20)
    code = StatusCode.RESOURCE_EXHAUSTED
    yield Vector("bytes: over the message limit", "InferenceService/Generate", big, code, (str(len(big)), str(2**20)))
