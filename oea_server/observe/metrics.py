"""The Prometheus metrics, on SGLang's own /metrics. A fixed number of series, whatever the model.

In SGLang's processes prometheus_client runs in multi-process mode: create this only after
PROMETHEUS_MULTIPROC_DIR is set, which SGLang does before it starts them.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from oea_server.routing.tally import MASS_UNIT
from oea_server.settings import POLICIES

EXPERTS = (
    *(1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64),
    *(72, 80, 88, 96, 112, 128, 192, 256, 512),
)
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
SECONDS = (
    *(
        0.001,
        0.002,
        0.003,
        0.004,
        0.006,
        0.008,
        0.01,
        0.012,
        0.015,
        0.02,
        0.025,
        0.03,
        0.04,
        0.05,
        0.06,
        0.08,
    ),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0),
)


class Latest(Gauge):
    """A gauge that shows the value of the process that wrote last, by a monotonic clock."""

    def __init__(self, *of: Any, **more: Any) -> None:
        super().__init__(*of, **{**more, "multiprocess_mode": "mostrecent"})

    def set(self, value: float) -> None:
        self._value.set(float(value), timestamp=time.monotonic())


class Metrics:
    """Everything we report. Only decode steps with a user's request count: no warm-up, no health
    checks, no rows that pad a CUDA graph."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self.router_active = Gauge(
            "oea_router_active",
            "1 if batch-aware routing decides which experts decode steps wake, 0 if the model's own"
            " top k does",
            multiprocess_mode="min",
            registry=registry,
        )
        self.router_limits = Gauge(
            "oea_router_limits",
            "1 while the reason holds for which layers, or all of them, run the model's own top k;"
            " else 0",
            ["reason"],
            multiprocess_mode="max",
            registry=registry,
        )
        self.build_info = Gauge(
            "oea_build_info",
            "1 for what runs: our version and git commit, SGLang's version, and our seams: hooks,"
            " or patched in",
            ["version", "commit", "sglang", "seams"],
            multiprocess_mode="max",
            registry=registry,
        )
        self._reason = ""
        self.unique_experts = Histogram(
            "oea_unique_experts",
            "Experts whose weights a decode step read (experts; one observation per MoE layer and"
            " step)",
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
            "oea_routed_tokens",
            "Tokens routed in decode steps (one per token and MoE layer)",
            registry=registry,
        )
        self.assignments = Counter(
            "oea_assignments",
            "Experts that tokens of decode steps took (one per token, expert and MoE layer)",
            registry=registry,
        )
        self.piggybacked = Counter(
            "oea_piggybacked_assignments",
            "Experts that tokens of decode steps took beyond the guaranteed ones, because the step"
            " read them anyway (one per token, expert and MoE layer)",
            registry=registry,
        )
        self.mass_kept = Latest(
            "oea_router_mass_kept",
            "Router mass of the experts that tokens took over that of the model's own top k; 1 is"
            " vanilla. The mean over tokens and layers of the last second with decode steps",
            registry=registry,
        )
        self.kept_mass = Counter(
            "oea_kept_router_mass",
            "Router mass of the experts that tokens took over that of the model's own top k, summed"
            " over tokens and MoE layers. Its rate over that of oea_routed_tokens_total is the mean"
            " of any time span",
            registry=registry,
        )
        self.bytes_read = Counter(
            "oea_expert_bytes_read",
            "Weights of experts that decode steps read, over all ranks (bytes)",
            registry=registry,
        )
        self.bytes_saved = Counter(
            "oea_expert_bytes_saved",
            "Weights of experts that the model's own top k would have read on top, in the same"
            " steps (bytes)",
            registry=registry,
        )
        self.bypassed = Counter(
            "oea_bypassed_steps",
            "Forward passes that the model's own top k routed. Reasons: policy is vanilla or"
            " shadow. schedule: too few requests for OEA. rows: more than the fused launch takes"
            " on a GPU. router: none can be handled. prefill, mixed, other: no decode step",
            ["reason"],
            registry=registry,
        )
        self.shadow_unique_experts = Histogram(
            "oea_shadow_unique_experts",
            "Experts that OEA would have read, while the policy is shadow (experts; one observation"
            " per MoE layer and step)",
            buckets=EXPERTS,
            registry=registry,
        )
        self.shadow_mass_kept = Latest(
            "oea_shadow_router_mass_kept",
            "Router mass of the experts that OEA would choose over that of the model's own top k,"
            " while the policy is shadow. The mean over tokens and layers of the last second with"
            " decode steps",
            registry=registry,
        )
        self.policy_info = Latest(
            "oea_policy_info",
            "1 for the policy in force, 0 for the others, with the sizes of the model that it"
            " routes",
            ["policy", "num_experts", "top_k", "ranks"],
            registry=registry,
        )
        self.pool_ranks = Latest(
            "oea_pool_ranks",
            "Ranks with batches of their own whose tokens are routed from one pool. 1 without DP"
            " attention, and with an all-to-all backend, where each rank routes its own tokens",
            registry=registry,
        )
        self.k0 = Latest(
            "oea_k0",
            "Experts that each token is guaranteed, by tokens in the step (layers with a schedule"
            " of their own aside; under shadow, what OEA would guarantee)",
            ["batch"],
            registry=registry,
        )
        self.share = Latest(
            "oea_share",
            "Least share of the mass of a token's own top k that a guaranteed expert after the"
            " first holds, by tokens in the step. 0 where all k0 are guaranteed",
            ["batch"],
            registry=registry,
        )
        self.mix = Latest(
            "oea_mix",
            "Part of the chosen experts' mass in what weights are divided by, beside that of the"
            " token's own top k, by tokens in the step",
            ["batch"],
            registry=registry,
        )
        self.config_changes = Counter(
            "oea_config_changes", "Changes of the configuration since the start", registry=registry
        )
        self.batch_size = Histogram(
            "oea_decode_batch_size",
            "Tokens in a decode step, drafts to be verified among them (tokens)",
            buckets=BATCHES,
            registry=registry,
        )
        self.step_requests = Counter(
            "oea_decode_requests",
            "Requests of decode steps, summed over steps: over the sum of oea_decode_batch_size,"
            " one in so many tokens of a step is no draft",
            registry=registry,
        )
        self.accepted_rows = Counter(
            "oea_accepted_rows",
            "Rows of steps that verified drafts which were accepted, the tokens' own among them:"
            " over oea_decode_requests_total, the tokens that a step gives a request",
            registry=registry,
        )
        self.rejected_experts = Counter(
            "oea_rejected_experts",
            "Experts that only rejected drafts woke in steps that batch-aware routing decided (one"
            " per expert, MoE layer and step)",
            registry=registry,
        )
        self.step_seconds = Histogram(
            "oea_decode_step_seconds",
            "Forward pass of a decode step on the device, without scheduling and sampling"
            " (seconds)",
            buckets=SECONDS,
            registry=registry,
        )
        self.busiest_rank: Histogram | None = None
        self.vanilla_busiest_rank: Histogram | None = None

    def set_state(self, state: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        """Report the configuration (`oea_server.engine.control.state_of`) that came after
        `before`."""
        self.set_router_active(state["active"], state["reason"])
        model, policy = state["model"], state["settings"]["policy"]
        for each in POLICIES:
            sizes = (model["num_experts"], model["top_k"], model["ranks"])
            self.policy_info.labels(each, *sizes).set(int(each == policy))
        self.pool_ranks.set(model.get("pool_ranks", 1))
        for name, series in (("k0", self.k0), ("share", self.share), ("mix", self.mix)):
            for batch, value in state[f"{name}_by_batch"].items():
                series.labels(batch=batch).set(value)
        self.config_changes.inc(state["version"] - before.get("version", 0))

    def set_router_active(self, active: bool, reason: str) -> None:
        """Report whether routing is ours, and why not (or not in all layers)."""
        self.router_active.set(int(active))
        if reason != self._reason and self._reason:
            self.router_limits.labels(reason=self._reason).set(0)  # a series cannot be taken back
        if reason:
            self.router_limits.labels(reason=reason).set(1)
        self._reason = reason

    def add_layers(self) -> None:
        """Report each MoE layer as well."""
        self._layer_steps = Counter(
            "oea_layer_steps",
            "Decode steps through a MoE layer (steps)",
            ["layer"],
            registry=self._registry,
        )
        self._layer_unique = Counter(
            "oea_layer_unique_experts",
            "Experts whose weights decode steps read in a MoE layer, summed over steps (experts)",
            ["layer"],
            registry=self._registry,
        )
        self._layer_vanilla = Counter(
            "oea_layer_vanilla_unique_experts",
            "Experts that the model's own top k would have read in a MoE layer, summed over steps"
            " (experts)",
            ["layer"],
            registry=self._registry,
        )
        self._layer_mass = Latest(
            "oea_layer_router_mass_kept",
            "Router mass of the experts that tokens took in a MoE layer over that of the model's"
            " own top k; 1 is vanilla. The mean over tokens of the last second with decode steps",
            ["layer"],
            registry=self._registry,
        )

    def observe_layer(
        self, layer: int, steps: int, unique: int, vanilla: int, tokens: int, mass: int
    ) -> None:
        """Report one MoE layer's last second; `mass` in the unit of the tally."""
        if steps:
            self._layer_steps.labels(layer).inc(steps)
            self._layer_unique.labels(layer).inc(unique)
            self._layer_vanilla.labels(layer).inc(vanilla)
        if tokens:
            self._layer_mass.labels(layer).set(mass / MASS_UNIT / tokens)

    def add_ranks(self) -> None:
        """Report the busiest rank as well: under expert parallelism a layer is as slow as that
        one."""
        self.busiest_rank = Histogram(
            "oea_max_rank_unique_experts",
            "Experts whose weights the busiest expert-parallel rank read "
            "(experts; one observation per MoE layer and step)",
            buckets=EXPERTS,
            registry=self._registry,
        )
        self.vanilla_busiest_rank = Histogram(
            "oea_vanilla_max_rank_unique_experts",
            "Experts that the busiest rank would have read under the model's own top k "
            "(experts; one observation per MoE layer and step)",
            buckets=EXPERTS,
            registry=self._registry,
        )


def observe_counts(histogram: Histogram, counts: Iterable[tuple[float, int]]) -> None:
    """Add (value, times observed) pairs at once.

    prometheus_client has no call for it. One `observe` per layer and step would cost a model of 94
    layers thousands of calls a second. The attributes are those that `observe` itself adds to.
    """
    for value, times in counts:
        histogram._buckets[bisect_left(histogram._upper_bounds, value)].inc(times)
        histogram._sum.inc(value * times)
