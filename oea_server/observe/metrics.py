"""The Prometheus metrics, on SGLang's own /metrics. A fixed number of series, whatever the model.

In SGLang's processes prometheus_client runs in multi-process mode: create this only after
PROMETHEUS_MULTIPROC_DIR is set, which SGLang does before it starts them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Gauge, Histogram

EXPERTS = (
    1,
    2,
    4,
    6,
    8,
    10,
    12,
    14,
    16,
    20,
    24,
    28,
    32,
    36,
    40,
    44,
    48,
    52,
    56,
    60,
    64,
    72,
    80,
    88,
    96,
    112,
    128,
    192,
    256,
    512,
)
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
SECONDS = (
    *(0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01, 0.012, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0),
)


class Metrics:
    """Everything we report. Only decode steps with a user's request count: no warm-up, no health
    checks, no rows that pad a CUDA graph."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self.router_active = Gauge(
            "oea_router_active",
            "1 if batch-aware routing decides which experts decode steps wake, 0 if the model's own top k does "
            "(the label says why)",
            ["reason"],
            multiprocess_mode="min",
            registry=registry,
        )
        self.unique_experts = Histogram(
            "oea_unique_experts",
            "Experts whose weights a decode step read (experts; one observation per MoE layer and step)",
            buckets=EXPERTS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "oea_decode_batch_size", "Tokens in a decode step (tokens)", buckets=BATCHES, registry=registry
        )
        self.step_seconds = Histogram(
            "oea_decode_step_seconds",
            "Forward pass of a decode step on the device, without scheduling and sampling (seconds)",
            buckets=SECONDS,
            registry=registry,
        )
        self.busiest_rank: Histogram | None = None

    def set_router_active(self, active: bool, reason: str) -> None:
        """Report whether routing is ours, and why not."""
        self.router_active.labels(reason=reason).set(int(active))

    def add_ranks(self) -> None:
        """Report the busiest rank as well: under expert parallelism a layer is as slow as that one."""
        self.busiest_rank = Histogram(
            "oea_max_rank_unique_experts",
            "Experts whose weights the busiest expert-parallel rank read "
            "(experts; one observation per MoE layer and step)",
            buckets=EXPERTS,
            registry=self._registry,
        )


def observe_counts(histogram: Histogram, counts: Iterable[tuple[float, int]]) -> None:
    """Add (value, times observed) pairs at once.

    prometheus_client has no call for it, and one `observe` per layer and step would cost a model of
    94 layers thousands of calls a second; the attributes are those that `observe` itself adds to.
    """
    for value, times in counts:
        histogram._buckets[bisect_left(histogram._upper_bounds, value)].inc(times)
        histogram._sum.inc(value * times)
