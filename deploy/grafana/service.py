"""Panels about what users feel, from SGLang's own metrics."""

from __future__ import annotations

from deploy.grafana.panel import Panel, Query
from deploy.grafana.promql import by_pod, quantile, sglang, sglang_rate


def latency(histogram: str, *more: str) -> tuple[Query, ...]:
    """Median, 95th and 99th percentile over all chosen pods."""
    buckets = sglang_rate(f"{histogram}_bucket", *more)
    return tuple(Query(quantile(q, buckets), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99))


SERVICE = (
    Panel(
        "Time to first token",
        "s",
        "From the arrival of a streamed request to its first token, over all chosen pods: queue and"
        " prefill. Requests that don't stream are left out, because SGLang sees no first token of"
        " theirs.",
        latency("time_to_first_token_seconds", 'is_streaming!="false"'),
    ),
    Panel(
        "Inter-token latency",
        "s",
        "Between two tokens of a request, over all chosen pods: a decode step, its scheduling and"
        " sampling, and whatever prefill came in between.",
        latency("inter_token_latency_seconds"),
    ),
    Panel(
        "End-to-end latency",
        "s",
        "From the arrival of a request to its last token, over all chosen pods. Follows the length"
        " of the answers.",
        latency("e2e_request_latency_seconds"),
    ),
    Panel(
        "Tokens per second",
        "si:tok/s",
        "Tokens computed, by kind of work: decode is what users read, prefill_compute is prompts,"
        " prefill_cache is prompts that were found in the cache.",
        (
            Query(
                f"sum by (namespace, pod, mode) ({sglang_rate('realtime_tokens_total')})",
                "{{pod}} {{mode}}",
            ),
        ),
    ),
    Panel(
        "Running and queued",
        "none",
        "Requests that run, which make up the batch of a step, and requests that wait. A queue"
        " that only grows: see OEAQueueGrows in the runbook.",
        (
            Query(by_pod(sglang("num_running_reqs"), "max"), "{{pod}} running"),
            Query(by_pod(sglang("num_queue_reqs"), "max"), "{{pod}} queued"),
        ),
    ),
    Panel(
        "KV cache in use",
        "percentunit",
        "Share of the KV cache that running requests hold. Near 100 % SGLang interrupts running"
        " requests and computes them again later.",
        (Query(by_pod(sglang("token_usage"), "max")),),
        maximum=1,
    ),
)
