"""What each tier is promised, and what its users feel."""

from __future__ import annotations

from deploy.grafana.panel import Panel, Query
from deploy.grafana.promql import oea, rate

LEGEND = "{{tier}} {{pod}}"


def by_tier(name: str) -> str:
    """Per second, of one of our counters, per pod and tier."""
    return f"sum by (namespace, pod, tier) ({rate(name)})"


def slowest(q: float) -> str:
    """A quantile of the time between two tokens, per tier over all chosen pods."""
    buckets = f"sum by (tier, le) ({rate('oea_tier_inter_token_latency_seconds_bucket')})"
    return f"histogram_quantile({q}, {buckets})"


TIERS = (
    Panel(
        "Router mass kept, by tier",
        "percentunit",
        "Share of the router mass of the model's own top k that the chosen experts of a tier's"
        " tokens hold. An exact tier keeps 100 %. On a GPU every eighth step is looked at. Empty"
        " without tiers.",
        (
            Query(
                f"{by_tier('oea_tier_kept_router_mass_total')} /"
                f" {by_tier('oea_tier_sampled_tokens_total')}",
                LEGEND,
            ),
        ),
        minimum=None,
        soft=(None, 1),
    ),
    Panel(
        "Promises broken, by tier",
        "none",
        "Tokens and layers within the window whose token was guaranteed fewer of its own best"
        " experts than its tier promises, or was not exact where it should be. Anything but 0 is a"
        " fault: see OEATierPromiseBroken.",
        (
            Query(
                "sum by (namespace, pod, tier)"
                f" (increase({oea('oea_tier_broken_promises_total')}[$window]))",
                LEGEND,
            ),
        ),
        kind="bars",
        must_be_0=True,
    ),
    Panel(
        "Time per token, by tier",
        "s",
        "The time between two tokens of a request as clients see it, over all chosen pods, of"
        " requests that have a tier: median and 95th percentile.",
        (Query(slowest(0.5), "{{tier}} p50"), Query(slowest(0.95), "{{tier}} p95")),
    ),
    Panel(
        "Tokens, by tier",
        "si:tok/s",
        "Tokens generated per second for requests of each tier. Requests without a tier"
        " are not among them.",
        (Query(by_tier("oea_tier_tokens_total"), LEGEND),),
    ),
    Panel(
        "Answers, by tier",
        "reqps",
        "Answers that ended per second, however, of requests of each tier; each of n counts.",
        (Query(by_tier("oea_tier_requests_total"), LEGEND),),
    ),
)
