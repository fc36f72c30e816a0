"""Which page shows what, in which order; what a panel asks follows from the metric."""

from __future__ import annotations

from typing import Any

from deploy.grafana.panels import Query
from hope_serve.metrics import Definition, Metrics

Shown = tuple[Definition[Any], tuple[str, ...]]
"""A metric, and the labels that its panel tells apart."""
Row = tuple[str, tuple[Shown, ...]]


def _each(*metrics: Definition[Any]) -> tuple[Shown, ...]:
    return tuple((metric, ()) for metric in metrics)


SERVING: tuple[Row, ...] = (
    (
        "Calls",
        (
            (Metrics.requests_total, ("method",)),
            (Metrics.requests_total, ("code",)),
            (Metrics.requests_total, ("finish_reason",)),
            *_each(Metrics.admission_rejected_total, Metrics.request_duration_seconds),
        ),
    ),
    ("Speed", _each(Metrics.time_to_first_token_seconds, Metrics.inter_token_latency_seconds)),
    (
        "Where a call's time goes",
        _each(
            Metrics.request_queue_seconds,
            Metrics.request_restore_seconds,
            Metrics.request_prefill_seconds,
            Metrics.request_decode_seconds,
        ),
    ),
    ("Tokens", _each(Metrics.prompt_tokens_total, Metrics.generation_tokens_total)),
    (
        "Load",
        _each(
            Metrics.saturation,
            Metrics.requests_running,
            Metrics.requests_waiting,
            Metrics.queue_tokens,
            Metrics.engine_step_seconds,
            Metrics.batch_tokens,
        ),
    ),
)

LEARNING: tuple[Row, ...] = (
    (
        "Lessons",
        _each(
            Metrics.adapt_total,
            Metrics.adapt_tokens_total,
            Metrics.adapt_duration_seconds,
            Metrics.requests_adapting,
            Metrics.idempotent_replays_total,
            Metrics.commit_conflicts_total,
        ),
    ),
    (
        "What is learned",
        _each(
            Metrics.adapt_nll_delta,
            Metrics.adapt_surprise,
            Metrics.memory_drift_ratio,
            Metrics.memory_updates_total,
        ),
    ),
    (
        "Memories on the device",
        (
            *_each(Metrics.memory_slots, Metrics.memory_slots_used, Metrics.memory_evictions_total),
            (Metrics.memory_lookups_total, ("tier", "result")),
            *_each(Metrics.memory_restore_seconds),
        ),
    ),
)

STORE: tuple[Row, ...] = (
    (
        "The store",
        (
            *_each(Metrics.store_up, Metrics.store_promise_kept, Metrics.version_regressions_total),
            (Metrics.store_op_seconds, ("op",)),
            (Metrics.store_op_seconds, ("result",)),
        ),
    ),
)

TENANTS: tuple[Row, ...] = (
    (
        "Calls",
        (
            (Metrics.tenant_requests_total, ("tenant",)),
            (Metrics.tenant_requests_total, ("tenant", "outcome")),
            (Metrics.tenant_calls_running, ("tenant",)),
        ),
    ),
    (
        "Tokens",
        (
            (Metrics.tenant_tokens_total, ("tenant",)),
            (Metrics.tenant_tokens_total, ("tenant", "use")),
        ),
    ),
)

ON_CALL: tuple[tuple[str, str, list[Query], str], ...] = (
    (
        "Failed calls",
        "Share of calls that the service failed. The budget is 0.1 %.",
        [
            ('job:hope_failures:ratio_rate5m{job="$job"}', "5 minutes"),
            ('job:hope_failures:ratio_rate1h{job="$job"}', "1 hour"),
        ],
        "percentunit",
    ),
    (
        "First token, p95",
        "From arrival to the first token.",
        [('job:hope_time_to_first_token_seconds:p95_5m{job="$job"}', "p95")],
        "s",
    ),
    (
        "Between tokens, p95",
        "Between two tokens of one answer.",
        [('job:hope_inter_token_latency_seconds:p95_5m{job="$job"}', "p95")],
        "s",
    ),
    (
        "Saturation",
        "How full the pods are; new ones come above 0.7.",
        [('job:hope_saturation:max{job="$job"}', "fullest"), ('job:hope_saturation:avg{job="$job"}', "mean")],
        "percentunit",
    ),
    (
        "Lessons not learned",
        "Share of Adapts that failed, and of those that made their own text less likely.",
        [
            ('job:hope_adapt_failures:ratio_rate5m{job="$job"}', "failed"),
            ('job:hope_adapt_worse:ratio_rate30m{job="$job"}', "worse"),
        ],
        "percentunit",
    ),
    (
        "Commit, p99, and an Adapt, p95",
        "What durability costs: one commit in the store, and a whole Adapt.",
        [
            ('job:hope_commit_seconds:p99_5m{job="$job"}', "commit"),
            ('job:hope_adapt_duration_seconds:p95_5m{job="$job"}', "Adapt"),
        ],
        "s",
    ),
    (
        "Pods",
        "Pods that answer, and pods that reach the store.",
        [('sum(up{job="$job"})', "answer"), ('sum(hope_store_up{job="$job"})', "reach the store")],
        "short",
    ),
    (
        "Releases",
        "Pods by release and by model; two for long is a rollout that stopped.",
        [
            ('count by (version) (hope_build_info{job="$job"})', "{{version}}"),
            (
                'count by (name, model) (label_replace(hope_model_info{job="$job"}, "model", "$1", "fingerprint", '
                '"(.{8}).*"))',
                "{{name}} {{model}}",
            ),
        ],
        "short",
    ),
    ("Calls a second", "Of all methods.", [('job:hope_calls:rate5m{job="$job"}', "calls")], "cps"),
)
