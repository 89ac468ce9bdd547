"""What is reported of tiers: of the process that serves HTTP, and of schedulers. Nothing is made
before one is used."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from oea_server.observe.metrics import SECONDS
from oea_server.routing.tally import MASS_UNIT
from oea_server.tiers.table import named

LABEL = ["tier"]


class Served(NamedTuple):
    """What clients got of a tier, since the start, of this process."""

    requests: int = 0
    tokens: int = 0
    later: int = 0
    """Tokens after a request's first ones."""
    seconds: float = 0.0
    """Seconds between tokens, summed over the later tokens."""


class Times:
    """Series by tier of a process that serves HTTP."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.served: dict[str, Served] = {}
        self._requests = Counter(
            "oea_tier_requests",
            "Answers that ended, by the tier of their request",
            LABEL,
            registry=registry,
        )
        self._tokens = Counter(
            "oea_tier_tokens",
            "Tokens that were generated, by the tier of their request",
            LABEL,
            registry=registry,
        )
        self._seconds = Histogram(
            "oea_tier_inter_token_latency_seconds",
            "Seconds between two tokens of a request as its client sees it, by its tier",
            LABEL,
            buckets=SECONDS,
            registry=registry,
        )

    def first(self, tier: str, tokens: int) -> None:
        """Count the first tokens that a request got."""
        self._keep(tier, tokens=tokens)

    def later(self, tier: str, tokens: int, seconds: float) -> None:
        """Count the tokens that a request got `seconds` after the ones before."""
        tier = self._keep(tier, tokens=tokens, later=tokens, seconds=seconds)
        histogram = self._seconds.labels(tier)
        histogram._buckets[bisect_left(histogram._upper_bounds, seconds / tokens)].inc(tokens)
        histogram._sum.inc(seconds)

    def ended(self, tier: str) -> None:
        """An answer ended, however."""
        self._requests.labels(self._keep(tier, requests=1)).inc()

    def _keep(
        self, tier: str, requests: int = 0, tokens: int = 0, later: int = 0, seconds: float = 0.0
    ) -> str:
        tier = named(tier, self.served)
        before = self.served.get(tier, Served())
        fresh = (requests, tokens, later, seconds)
        self.served[tier] = Served(*(a + b for a, b in zip(before, fresh, strict=True)))  # type: ignore[arg-type]
        if tokens:
            self._tokens.labels(tier).inc(tokens)
        return tier


class Rows:
    """Series by tier of a scheduler."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._before: dict[str, tuple[int, int, int]] = {}
        self._sampled = Counter(
            "oea_tier_sampled_tokens",
            "Tokens of decode steps that were looked at, by the tier of their request. One per"
            " token and MoE layer; on a GPU every eighth step",
            LABEL,
            registry=registry,
        )
        self._mass = Counter(
            "oea_tier_kept_router_mass",
            "Router mass of the experts that sampled tokens took over that of the model's own top"
            " k, by the tier of their request. Summed over MoE layers and the tokens of"
            " oea_tier_sampled_tokens_total",
            LABEL,
            registry=registry,
        )
        self._broken = Counter(
            "oea_tier_broken_promises",
            "Tokens of oea_tier_sampled_tokens_total that got less than the tier of their request"
            " promises. Fewer of their own best experts were guaranteed, or an exact tier's token"
            " kept less than all router mass",
            LABEL,
            registry=registry,
        )

    def add(self, counted: Mapping[str, tuple[int, int, int]]) -> None:
        """Report what came since the last time; mass in units of 1 / MASS_UNIT."""
        for tier, after in counted.items():
            tokens, mass, broken = (
                a - b for a, b in zip(after, self._before.get(tier, (0, 0, 0)), strict=True)
            )
            self._sampled.labels(tier).inc(max(0, tokens))
            self._mass.labels(tier).inc(max(0, mass) / MASS_UNIT)
            self._broken.labels(tier).inc(max(0, broken))
        self._before.update(counted)
