"""Panels about experts: how many are read, what that saves, and how far routing is from the trained
model."""

from __future__ import annotations

from deploy.grafana.panel import Panel, Query
from deploy.grafana.promql import by_pod, mean, oea, rate, ratio

READ = Query(mean("oea_unique_experts"), "{{pod}} read")
WOULD = Query(mean("oea_vanilla_unique_experts"), "{{pod}} model's own top k")

EXPERTS = (
    Panel(
        "Experts read per layer (T)",
        "none",
        "Mean number of different experts whose weights a MoE layer reads in a decode step, and"
        " what the model's own top k would have read in the same steps. A step's time follows T;"
        " the gap is what OEA saves. Equal lines while the policy is oea: see OEANotSaving in the"
        " runbook.",
        (READ, WOULD),
        sided=True,
    ),
    Panel(
        "Distribution of T",
        "none",
        "How often a layer of a decode step read how many experts, per second. One band at rising"
        " heights as the load grows is healthy; a second band at the height of the model's own top"
        " k means that some steps or layers bypass OEA.",
        (Query(f"sum by (le) ({rate('oea_unique_experts_bucket')})", "{{le}}"),),
        kind="heatmap",
    ),
    Panel(
        "Experts saved",
        "percentunit",
        "Share of the experts of the model's own top k that need not be read. Falls to 0 at one"
        " token per step, where OEA steps aside, and again at very large batches, where all experts"
        " are awake anyway.",
        (Query(f"1 - ({mean('oea_unique_experts')}) / ({mean('oea_vanilla_unique_experts')})"),),
        minimum=None,
        maximum=1,
        soft=(0, None),
    ),
    Panel(
        "Bytes read and saved",
        "Bps",
        "Bytes of expert weights per second that decode steps read, over all ranks, and that the"
        " model's own top k would have read on top. Compare with the memory bandwidth of all GPUs"
        " together.",
        (
            Query(by_pod(rate("oea_expert_bytes_read_total")), "{{pod}} read"),
            Query(by_pod(rate("oea_expert_bytes_saved_total")), "{{pod}} saved"),
        ),
        sided=True,
    ),
    Panel(
        "Busiest rank against T",
        "none",
        "With expert parallelism: experts that the busiest rank reads, beside T over all ranks: a"
        " layer is as slow as that rank. T divided by the number of ranks would be perfect balance."
        " Without --ep-size above 1 only T is shown.",
        (
            Query(mean("oea_max_rank_unique_experts"), "{{pod}} busiest rank"),
            Query(
                mean("oea_vanilla_max_rank_unique_experts"), "{{pod}} busiest rank under vanilla"
            ),
            READ,
        ),
        sided=True,
    ),
    Panel(
        "Shadow: T under OEA",
        "none",
        "While the policy is shadow, which serves the model's own top k: the experts that OEA with"
        " the current knobs would have read, beside what is read. Empty under every other policy.",
        (Query(mean("oea_shadow_unique_experts"), "{{pod}} with OEA"), READ),
        sided=True,
    ),
)

QUALITY = (
    Panel(
        "Router mass kept",
        "percentunit",
        "Share of the router mass of the model's own top k that the chosen experts hold: the exact"
        " mean over tokens and layers. 100 % is the trained model's choice. It says how far routing"
        " is from training, not what that costs in quality.",
        (Query(ratio("oea_kept_router_mass_total", "oea_routed_tokens_total")),),
        minimum=None,
        soft=(None, 1),
    ),
    Panel(
        "Piggybacked assignments",
        "percentunit",
        "Share of a token's experts beyond the guaranteed ones that were awake for its neighbours"
        " anyway: experts that cost nothing to read. 0 under vanilla.",
        (Query(ratio("oea_piggybacked_assignments_total", "oea_assignments_total")),),
        maximum=1,
    ),
    Panel(
        "Shadow: router mass kept",
        "percentunit",
        "While the policy is shadow: the router mass kept that OEA with the current knobs would"
        " have, over the last second with decode steps. Empty until the policy has been shadow.",
        (Query(by_pod(oea("oea_shadow_router_mass_kept"), "max")),),
        minimum=None,
        soft=(None, 1),
    ),
)
