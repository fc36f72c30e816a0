"""MemoryService: memories, versions, receipts."""

from __future__ import annotations

from collections.abc import Sequence

from hope_serve.api import ErasureReceipt, Evaluation, MemoryReport, MemorySummary, VersionReport
from hope_serve.errors import within
from hope_serve.pb.hope.v1 import inference_pb2, memory_pb2
from hope_serve.wire.adaptation import read_levels, read_source, write_levels, write_source
from hope_serve.wire.calls import EvaluateCall, ProbeCall
from hope_serve.wire.content import read_content, write_content
from hope_serve.wire.enums import VERSION_KIND, VersionKind
from hope_serve.wire.plain import read_plain, write_plain
from hope_serve.wire.score import read_scores, write_scores
from hope_serve.wire.timestamps import read_time, write_time


def write_memory(report: MemoryReport) -> memory_pb2.GetMemoryResponse:
    """A memory's message."""
    message = memory_pb2.GetMemoryResponse(
        levels=write_levels(report.levels),
        sources=[write_source(source) for source in report.sources],
        updated_at=write_time(report.updated_at),
    )
    return write_plain(message, report)


def read_memory(message: memory_pb2.GetMemoryResponse) -> MemoryReport:
    """A memory."""
    return MemoryReport(
        levels=read_levels(message.levels),
        sources=tuple(read_source(source) for source in message.sources),
        updated_at=read_time(message.updated_at),
        **read_plain(message),
    )


def write_page(page: Sequence[MemorySummary], next_page_token: str) -> memory_pb2.ListMemoriesResponse:
    """A page of memories, as a message."""
    lines = [
        memory_pb2.MemorySummary(
            user_id=line.user, version=line.version, num_bytes=line.num_bytes, updated_at=write_time(line.updated_at)
        )
        for line in page
    ]
    return memory_pb2.ListMemoriesResponse(memories=lines, next_page_token=next_page_token)


def read_page(message: memory_pb2.ListMemoriesResponse) -> tuple[tuple[MemorySummary, ...], str]:
    """A page of memories, and the token of the next."""
    lines = tuple(
        MemorySummary(
            user=line.user_id, version=line.version, num_bytes=line.num_bytes, updated_at=read_time(line.updated_at)
        )
        for line in message.memories
    )
    return lines, message.next_page_token


def write_versions(reports: Sequence[VersionReport]) -> memory_pb2.ListVersionsResponse:
    """The versions' message."""
    return memory_pb2.ListVersionsResponse(versions=[_write_version(report) for report in reports])


def read_versions(message: memory_pb2.ListVersionsResponse) -> tuple[VersionReport, ...]:
    """The versions."""
    return tuple(_read_version(version) for version in message.versions)


def write_receipt(receipt: ErasureReceipt) -> memory_pb2.DeleteMemoryResponse:
    """An erasure's message."""
    return write_plain(memory_pb2.DeleteMemoryResponse(erased_at=write_time(receipt.erased_at)), receipt)


def read_receipt(message: memory_pb2.DeleteMemoryResponse) -> ErasureReceipt:
    """An erasure."""
    return ErasureReceipt(erased_at=read_time(message.erased_at), **read_plain(message))


def write_evaluate(call: EvaluateCall) -> memory_pb2.EvaluateMemoryRequest:
    """An evaluation's message."""
    probes = [
        memory_pb2.Probe(
            continuation=inference_pb2.Continuation(**write_content(probe.continuation)),
            **({} if probe.prompt is None else write_content(probe.prompt)),
        )
        for probe in call.probes
    ]
    return memory_pb2.EvaluateMemoryRequest(user_id=call.user_id, probes=probes, versions=call.versions)


def read_evaluate(message: memory_pb2.EvaluateMemoryRequest) -> EvaluateCall:
    """An evaluation; raises InvalidRequest."""
    probes = tuple(_read_probe(probe, i) for i, probe in enumerate(message.probes))
    return EvaluateCall(user_id=message.user_id, probes=probes, versions=tuple(message.versions))


def write_evaluations(evaluations: Sequence[Evaluation]) -> memory_pb2.EvaluateMemoryResponse:
    """What came of it, as a message."""
    parts = [
        write_plain(memory_pb2.Evaluation(scores=write_scores(evaluation.scores).scores), evaluation)
        for evaluation in evaluations
    ]
    return memory_pb2.EvaluateMemoryResponse(evaluations=parts)


def read_evaluations(message: memory_pb2.EvaluateMemoryResponse) -> tuple[Evaluation, ...]:
    """What came of it."""
    return tuple(Evaluation(scores=read_scores(part), **read_plain(part)) for part in message.evaluations)


def _read_probe(message: memory_pb2.Probe, index: int) -> ProbeCall:
    with within(f"probes[{index}]"):
        prompt = read_content(message, "prompt") if message.WhichOneof("prompt") else None
    with within(f"probes[{index}].continuation"):
        continuation = read_content(message.continuation, "content")
    return ProbeCall(prompt=prompt, continuation=continuation)  # type: ignore[arg-type]  # the message has no turns


def _write_version(report: VersionReport) -> memory_pb2.MemoryVersion:
    message = memory_pb2.MemoryVersion(
        created_at=write_time(report.created_at),
        kind=VERSION_KIND.write(VersionKind(report.kind)),
        source=write_source(report.source),
    )
    return write_plain(message, report)


def _read_version(message: memory_pb2.MemoryVersion) -> VersionReport:
    kind = VERSION_KIND.read(message.kind, "kind")
    return VersionReport(
        created_at=read_time(message.created_at),
        kind=kind.value if kind else "",
        source=read_source(message.source),
        **read_plain(message),
    )
