"""Panels layer by layer. Their series exist on servers started with --oea-per-layer-metrics."""

from __future__ import annotations

from deploy.grafana.panel import Panel, Query
from deploy.grafana.promql import oea, rate

OPT_IN = "Empty unless the server was started with --oea-per-layer-metrics."


def by_layer(counter: str) -> str:
    return f"sum by (layer) ({rate(counter)})"


def per_step(counter: str) -> str:
    return f"{by_layer(counter)} / {by_layer('oea_layer_steps_total')}"


LAYERS = (
    Panel(
        "T by layer",
        "none",
        f"Experts read per decode step in each MoE layer, over all chosen pods. {OPT_IN}",
        (Query(per_step("oea_layer_unique_experts_total"), "layer {{layer}}"),),
    ),
    Panel(
        "Experts saved by layer",
        "percentunit",
        "Share of the experts of the model's own top k that a layer need not read, over all chosen"
        f" pods. A layer at 0 % has a schedule of its own or cannot be handled. {OPT_IN}",
        (
            Query(
                f"1 - {by_layer('oea_layer_unique_experts_total')} "
                f"/ {by_layer('oea_layer_vanilla_unique_experts_total')}",
                "layer {{layer}}",
            ),
        ),
        minimum=None,
        maximum=1,
        soft=(0, None),
    ),
    Panel(
        "Router mass kept by layer",
        "percentunit",
        "As above, layer by layer, over the last second with decode steps: the lowest of the"
        f" chosen pods. Layers far below the others deserve a higher k0 of their own. {OPT_IN}",
        (Query(f"min by (layer) ({oea('oea_layer_router_mass_kept')})", "layer {{layer}}"),),
        minimum=None,
        soft=(None, 1),
    ),
)
