"""Score and GetModel."""

from __future__ import annotations

from collections.abc import Sequence

from hope_serve.api import ModelInfo, ScoreResult
from hope_serve.pb.hope.v1 import inference_pb2, memory_pb2
from hope_serve.wire.calls import ScoreCall
from hope_serve.wire.content import read_content, write_content
from hope_serve.wire.generate import read_memory_choice, write_memory_choice
from hope_serve.wire.plain import read_plain, write_plain


def write_score(call: ScoreCall) -> inference_pb2.ScoreRequest:
    """The request's message."""
    return inference_pb2.ScoreRequest(
        user_id=call.user_id,
        memory=write_memory_choice(call.memory),
        continuations=[inference_pb2.Continuation(**write_content(content)) for content in call.continuations],
        **write_content(call.prompt),
    )


def read_score(message: inference_pb2.ScoreRequest) -> ScoreCall:
    """The request; raises InvalidRequest."""
    return ScoreCall(
        prompt=read_content(message, "prompt"),
        continuations=[read_content(part, "content") for part in message.continuations],  # type: ignore[misc]
        user_id=message.user_id,
        memory=read_memory_choice(message.memory),
    )


def write_scores(scores: Sequence[ScoreResult]) -> inference_pb2.ScoreResponse:
    """The reply's message."""
    parts = [write_plain(inference_pb2.ContinuationScore(), score) for score in scores]
    return inference_pb2.ScoreResponse(scores=parts)


def read_scores(message: inference_pb2.ScoreResponse | memory_pb2.Evaluation) -> tuple[ScoreResult, ...]:
    """The reply."""
    return tuple(ScoreResult(**read_plain(score)) for score in message.scores)


def write_model(info: ModelInfo) -> inference_pb2.GetModelResponse:
    """The served model's message."""
    return write_plain(inference_pb2.GetModelResponse(), info)


def read_model(message: inference_pb2.GetModelResponse) -> ModelInfo:
    """The served model."""
    return ModelInfo(**read_plain(message))
