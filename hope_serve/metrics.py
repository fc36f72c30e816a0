"""What the server measures: every metric's name, meaning, unit, labels and buckets, in one table.

Base units, no ids of users, memories or calls in any label, and every label's values are a closed set, but tenants: the
first ``MAX_TENANTS`` that a pod meets go by their names, all others by one. Buckets are
fine where a distribution is watched for itself and coarse where labels multiply them: a pod has fewer than 1,000
series when it has served every method and met an error of every kind.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Generic, Self, TypeVar, overload

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

M = TypeVar("M", bound=MetricWrapperBase)
Labels = tuple[str, ...]

MAX_LEVELS = 8
MAX_TENANTS = 16
OTHER_TENANTS = "(others)"
"""No tenant is called so."""
MAX_PRECREATED = 32
METHODS: Labels = (
    "Generate", "GenerateStream", "Score", "Tokenize", "Detokenize", "GetModel", "Adapt", "AdaptStream", "GetMemory",
    "ListMemories", "ListVersions", "RollbackMemory", "ForkMemory", "EvaluateMemory", "ExportMemory", "ImportMemory",
    "WarmMemory", "DeleteMemory", "DeleteSession",
)  # fmt: skip
CODES: Labels = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
FINISH_REASONS: Labels = ("none", "stop", "length")
REJECTIONS: Labels = (
    "concurrency", "queue_full", "learning_backlog", "deadline", "draining", "tenant_limits", "user_limits",
    "key_limits",
)  # fmt: skip
TIERS: Labels = ("none", "device", "host", "store")
OUTCOMES: Labels = ("committed", "skipped", "dry_run", "duplicate", "refused", "failed")
LOOKUPS: Labels = ("hit", "miss", "error")
EVICTIONS: Labels = ("capacity", "stale", "erased")
STORE_OPS: Labels = (
    "ping", "head", "load", "describe", "find_request", "commit", "versions", "rollback", "erase", "list_owners",
    "load_session", "save_session", "delete_session",
)  # fmt: skip
STORE_RESULTS: Labels = ("ok", "refused", "unavailable", "corrupt", "cancelled")
TENANTS: Labels = ()
"""Nobody knows them beforehand."""
TENANT_OUTCOMES: Labels = ("ok", "over_limits", "refused", "failed")
TOKEN_USES: Labels = ("read", "written", "learned")
LEVELS: Labels = tuple(str(i) for i in range(MAX_LEVELS))

STEP_SECONDS = (
    0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3,
    0.5, 0.75, 1.0, 2.5, 5.0,
)  # fmt: skip
FIRST_TOKEN_SECONDS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.4, 0.6, 0.8, 1.0, 1.5, 2.5, 5.0, 7.5, 10.0,
    15.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
STAGE_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0)
METHOD_SECONDS = (0.005, 0.02, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0, 300.0)
STORE_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.5, 10.0)
TOKENS = tuple(float(2**i) for i in range(17))
NATS = (-8.0, -4.0, -2.0, -1.0, -0.5, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
NORMS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
RATIOS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


class TenantNames:
    """The tenants that go by their names, which are the same in every metric of one server."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def label(self, tenant: str) -> str:
        """What a metric calls ``tenant``."""
        if tenant in self._names or len(self._names) < MAX_TENANTS:
            self._names.add(tenant)
            return tenant
        return OTHER_TENANTS


class Family(Generic[M]):
    """One metric of one server; called with its labels' values, it gives the series."""

    def __init__(self, collector: M, labels: dict[str, Labels], tenants: TenantNames) -> None:
        self._collector = collector
        self._labels = labels
        self._tenants = tenants
        combinations = list(product(*labels.values()))
        if labels and isinstance(collector, Counter) and len(combinations) <= MAX_PRECREATED:
            for values in combinations:  # a series that starts at 0 has a rate from its first event on
                collector.labels(*values)

    def __call__(self, **values: str) -> M:
        """The series with these labels.

        Raises:
            ValueError: a label is missing, unknown, or has a value outside its closed set.
        """
        if values.keys() != self._labels.keys():
            raise ValueError(f"labels {sorted(values)} were given; the metric has {sorted(self._labels)}")
        if "tenant" in values:
            values["tenant"] = self._tenants.label(values["tenant"])
        for label, value in values.items():
            if self._labels[label] is not TENANTS and value not in self._labels[label]:
                raise ValueError(f"label {label} is {value!r}; choose one of {', '.join(self._labels[label])}")
        return self._collector.labels(**values) if values else self._collector

    def value(self, **values: str) -> float:
        """What a gauge or counter says now. Raises ValueError as a call does."""
        return float(next(iter(self(**values).collect())).samples[0].value)


class Definition(Generic[M]):
    """A row of the table: what a metric is. Read from a ``Metrics``, it is that server's metric."""

    name: str

    def __init__(self, kind: type[M], help: str, buckets: tuple[float, ...] = (), **labels: Labels) -> None:  # noqa: A002
        self.kind, self.help, self.buckets, self.labels = kind, help, buckets, labels

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"hope_{name}"

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Metrics, owner: type) -> Family[M]: ...
    def __get__(self, instance: Metrics | None, owner: type) -> Self | Family[M]:
        return self if instance is None else instance.family(self.name)

    def build(self, registry: CollectorRegistry, tenants: TenantNames) -> Family[M]:
        """This metric, registered."""
        options: dict[str, Any] = {"buckets": self.buckets} if self.buckets else {}
        collector = self.kind(self.name, self.help, tuple(self.labels), registry=registry, **options)
        return Family(collector, self.labels, tenants)


class Metrics:
    """Everything one server measures, in a registry of its own."""

    requests_running = Definition(Gauge, "Sequences in the batch.")
    requests_waiting = Definition(Gauge, "Sequences in the queue.")
    requests_adapting = Definition(Gauge, "Sequences in the batch that learn.")
    queue_tokens = Definition(Gauge, "Prompt tokens in the queue.")
    saturation = Definition(Gauge, "How full the fullest of queue, slots and learning is, 0 to 1; scale out above 0.7.")
    requests_total = Definition(Counter, "Calls answered.", method=METHODS, code=CODES, finish_reason=FINISH_REASONS)
    admission_rejected_total = Definition(Counter, "Calls refused before any work.", reason=REJECTIONS)
    time_to_first_token_seconds = Definition(
        Histogram, "From arrival to the first token, by where the memory was.", FIRST_TOKEN_SECONDS, memory_tier=TIERS
    )
    inter_token_latency_seconds = Definition(Histogram, "Between a sequence's tokens.", STEP_SECONDS)
    request_duration_seconds = Definition(
        Histogram, "From arrival to the answer's end.", METHOD_SECONDS, method=METHODS
    )
    request_queue_seconds = Definition(Histogram, "Waiting to be admitted to the batch.", STAGE_SECONDS)
    request_restore_seconds = Definition(Histogram, "Bringing memory or session in.", STAGE_SECONDS)
    request_prefill_seconds = Definition(Histogram, "Reading the prompt.", STAGE_SECONDS)
    request_decode_seconds = Definition(Histogram, "Writing the reply.", STAGE_SECONDS)
    prompt_tokens_total = Definition(Counter, "Prompt tokens read.")
    generation_tokens_total = Definition(Counter, "Tokens written.")
    adapt_tokens_total = Definition(Counter, "Tokens learned.")
    adapt_total = Definition(Counter, "Adaptations, background learning included.", outcome=OUTCOMES)
    adapt_duration_seconds = Definition(Histogram, "From arrival to the durable version.", STAGE_SECONDS)
    adapt_nll_delta = Definition(Histogram, "Loss after minus before, in nats a token.", NATS)
    adapt_surprise = Definition(Histogram, "Norm of the summed gradient per token.", NORMS)
    memory_drift_ratio = Definition(Histogram, "Learned change over the weights it changes.", RATIOS, level=LEVELS)
    memory_updates_total = Definition(Counter, "Updates of a level.", level=LEVELS)
    memory_lookups_total = Definition(Counter, "Memories looked for, by tier.", tier=TIERS[1:], result=LOOKUPS)
    memory_restore_seconds = Definition(Histogram, "Bringing one memory in.", STORE_SECONDS, tier=TIERS[1:])
    memory_slots = Definition(Gauge, "Memories that fit on the device.")
    memory_slots_used = Definition(Gauge, "Memories on the device.")
    memory_evictions_total = Definition(Counter, "Memories that left the device.", reason=EVICTIONS)
    commit_conflicts_total = Definition(Counter, "Commits that met a newer version and learned again on it.")
    idempotent_replays_total = Definition(Counter, "Repeated calls answered with the first result.")
    store_op_seconds = Definition(Histogram, "Store operations.", STORE_SECONDS, op=STORE_OPS, result=STORE_RESULTS)
    version_regressions_total = Definition(Counter, "Memories met at an earlier version than before.")
    store_up = Definition(Gauge, "1 while the store answers.")
    store_promise_kept = Definition(Gauge, "1 while the store has the settings and the secret it was opened with.")
    engine_step_seconds = Definition(Histogram, "Engine steps.", STEP_SECONDS)
    batch_tokens = Definition(Histogram, "Tokens of a step.", TOKENS)
    tenant_requests_total = Definition(
        Counter, "Calls of a tenant, by how they ended.", tenant=TENANTS, outcome=TENANT_OUTCOMES
    )
    tenant_calls_running = Definition(Gauge, "Calls of a tenant that are being answered.", tenant=TENANTS)
    tenant_tokens_total = Definition(
        Counter, "Tokens of a tenant: of prompts, of answers, of lessons.", tenant=TENANTS, use=TOKEN_USES
    )

    def __init__(self, *, build: dict[str, str] | None = None, model: dict[str, str] | None = None) -> None:
        """``build`` and ``model`` become the labels of hope_build_info and hope_model_info, which are always 1."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for every counter and histogram, which nobody reads
        self.registry = CollectorRegistry()
        tenants = TenantNames()
        self._families: dict[str, Family[Any]] = {d.name: d.build(self.registry, tenants) for d in definitions()}
        for name, text, labels in (
            ("hope_build_info", "The running release.", build or {}),
            ("hope_model_info", "The served model.", model or {}),
        ):
            info = Gauge(name, text, tuple(labels), registry=self.registry)
            (info.labels(**labels) if labels else info).set(1)

    def family(self, name: str) -> Family[Any]:
        """The metric called ``name``."""
        return self._families[name]


def definitions() -> tuple[Definition[Any], ...]:
    """The table's rows."""
    return tuple(row for row in vars(Metrics).values() if isinstance(row, Definition))
