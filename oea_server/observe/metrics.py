"""The Prometheus metrics, on SGLang's own /metrics. A fixed number of series, whatever the model.

In SGLang's processes prometheus_client runs in multi-process mode: create this only after
PROMETHEUS_MULTIPROC_DIR is set, which SGLang does before it starts them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

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
            "1 if batch-aware routing decides which experts decode steps wake, 0 if the model's own top k does",
            multiprocess_mode="min",
            registry=registry,
        )
        self.router_limits = Gauge(
            "oea_router_limits",
            "1 while the reason holds for which layers, or all of them, run the model's own top k; else 0",
            ["reason"],
            multiprocess_mode="max",
            registry=registry,
        )
        self._reason = ""
        self.unique_experts = Histogram(
            "oea_unique_experts",
            "Experts whose weights a decode step read (experts; one observation per MoE layer and step)",
            buckets=EXPERTS,
            registry=registry,
        )
        self.vanilla_unique_experts = Histogram(
            "oea_vanilla_unique_experts",
            "Experts that the model's own top k would have read in the same steps "
            "(experts; one observation per MoE layer and step)",
            buckets=EXPERTS,
            registry=registry,
        )
        self.tokens = Counter(
            "oea_routed_tokens", "Tokens routed in decode steps (one per token and MoE layer)", registry=registry
        )
        self.assignments = Counter(
            "oea_assignments", "Experts that these tokens took (one per token, expert and layer)", registry=registry
        )
        self.piggybacked = Counter(
            "oea_piggybacked_assignments",
            "Those of them that were awake anyway: beyond the experts that the token was guaranteed",
            registry=registry,
        )
        self.mass_kept = Gauge(
            "oea_router_mass_kept",
            "Router mass of the experts that tokens took over that of the model's own top k (mean over tokens and "
            "layers of the last second with decode steps; 1 is vanilla)",
            multiprocess_mode="mostrecent",
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
        """Report whether routing is ours, and why not (or not in all layers)."""
        self.router_active.set(int(active))
        if reason != self._reason and self._reason:
            self.router_limits.labels(reason=self._reason).set(0)  # a series cannot be taken back
        if reason:
            self.router_limits.labels(reason=reason).set(1)
        self._reason = reason

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
