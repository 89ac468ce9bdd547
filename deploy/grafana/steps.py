"""Panels about decode steps and the configuration that routes them."""

from __future__ import annotations

from deploy.grafana.panel import Panel, Query
from deploy.grafana.promql import by_pod, mean, oea, quantile, rate, sglang

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Tokens of a step, of which the metrics say what is guaranteed."""


def by_batch(aggregate: str, gauge: str) -> tuple[Query, ...]:
    """A query for each batch: Prometheus's own order of series is none."""
    selectors = ((batch, oea(gauge, f'batch="{batch}"')) for batch in BATCHES)
    return tuple(Query(f"{aggregate} ({selector})", str(batch)) for batch, selector in selectors)


STEPS = (
    Panel(
        "Decode step time",
        "s",
        "Forward pass of a decode step on the device, without scheduling and sampling, over all"
        " chosen pods. This is what OEA shortens.",
        tuple(
            Query(quantile(q, rate("oea_decode_step_seconds_bucket")), f"p{q * 100:g}")
            for q in (0.5, 0.9, 0.99)
        ),
    ),
    Panel(
        "Tokens per decode step",
        "none",
        "The batch of a decode step: its mean per pod, and the 95th percentile over all chosen"
        " pods. OEA saves most where it is neither 1 nor so large that all experts are awake.",
        (
            Query(mean("oea_decode_batch_size"), "{{pod}} mean"),
            Query(quantile(0.95, rate("oea_decode_batch_size_bucket")), "p95"),
        ),
    ),
    Panel(
        "Rows and tokens kept",
        "none",
        "With speculative decoding: how many rows a request has in a decode step, its last token"
        " and drafts, and how many tokens a step gave it (SGLang's accept length). 1 and 0"
        " without.",
        (
            Query(
                f"sum by (namespace, pod) ({rate('oea_decode_batch_size_sum')}) "
                f"/ sum by (namespace, pod) ({rate('oea_decode_requests_total')})",
                "{{pod}} rows",
            ),
            Query(by_pod(sglang("spec_accept_length"), "max"), "{{pod}} kept"),
            Query(
                f"sum by (namespace, pod) ({rate('oea_accepted_rows_total')}) "
                f"/ sum by (namespace, pod) ({rate('oea_decode_requests_total')})",
                "{{pod}} kept, of counted steps",
            ),
        ),
    ),
    Panel(
        "Read for rejected drafts",
        "percentunit",
        "With speculative decoding: of the experts that MoE layers read, the share that only"
        " rejected drafts woke. Where it is much, fewer drafts or a lower draft_k0 would save"
        " reads. 0 without drafts.",
        (
            Query(
                f"sum by (namespace, pod) ({rate('oea_rejected_experts_total')}) "
                f"/ sum by (namespace, pod) ({rate('oea_unique_experts_sum')})",
            ),
        ),
        maximum=1,
    ),
    Panel(
        "Bypassed steps by reason",
        "ops",
        "Forward passes per second that ran the model's own top k. prefill and mixed are by design;"
        " schedule: the step had too few requests; rows: more rows than the launch on a GPU takes;"
        " policy: vanilla or shadow; router: the model's routers cannot be handled (see"
        " OEARouterInactive).",
        (
            Query(
                f"sum by (namespace, pod, reason) ({rate('oea_bypassed_steps_total')})",
                "{{pod}} {{reason}}",
            ),
        ),
    ),
    Panel(
        "Ranks that share a pool",
        "none",
        "Ranks with batches of their own (DP attention) whose tokens are routed as one step. 1 with"
        " an all-to-all backend: there each rank routes its own tokens, which is weaker.",
        (Query(f"max by (namespace, pod) ({oea('oea_pool_ranks')})", "{{pod}}"),),
        kind="bars",
    ),
)

CONFIGURATION = (
    Panel(
        "Router",
        "bool_yes_no",
        "Whether batch-aware routing decides which experts decode steps wake. No under the policies"
        " vanilla and shadow, and where the model's routers cannot be handled.",
        (Query(by_pod(oea("oea_router_active"), "min")),),
        kind="stat",
        values=(("1", "active", "green"), ("0", "model's own top k", "orange")),
    ),
    Panel(
        "Policy in force",
        "bool",
        "Which policy each pod runs, over time. Dashed lines across the dashboard mark changes of"
        " the configuration.",
        (
            Query(
                f"max by (namespace, pod, policy) ({oea('oea_policy_info')}) == 1",
                "{{pod}} {{policy}}",
            ),
        ),
        kind="states",
        sided=True,
        values=(("1", "in force", ""),),
    ),
    Panel(
        "Pods by build",
        "none",
        "How many pods run which build: our version and git commit, SGLang's version, and whether"
        " our seams are hooks or patched into SGLang. Two lines for long mean a roll-out that"
        " stands still.",
        (
            Query(
                f"count by (version, commit, sglang, seams) ({oea('oea_build_info')})",
                "{{version}} {{commit}}, SGLang {{sglang}}, {{seams}}",
            ),
        ),
    ),
    Panel(
        "Guaranteed (k0), by batch",
        "none",
        "The schedule in force: how many of its own best experts a token is guaranteed in a step of"
        " 1, 2, 4 and more tokens; the least of the chosen pods. Smaller reads fewer experts and is"
        " further from the trained model.",
        by_batch("min", "oea_k0"),
        kind="bars",
    ),
    Panel(
        "Share, by batch",
        "none",
        "What each guaranteed expert but the first exceeds, of the mass of a token's own top k, in"
        " a step of 1, 2, 4 and more tokens; the most of the chosen pods. 0 guarantees all k0.",
        by_batch("max", "oea_share"),
        kind="bars",
        maximum=1,
    ),
    Panel(
        "Mix, by batch",
        "none",
        "The part of the chosen experts' mass in what weights are divided by, in a step of 1, 2, 4"
        " and more tokens; the least of the chosen pods. 1 is the model's own way.",
        by_batch("min", "oea_mix"),
        kind="bars",
        maximum=1,
    ),
    Panel(
        "Controller: rung and error",
        "none",
        "With a target for the time per token: the rung that serves (0 is the safest), and how far"
        " the last period was above the target, as a share of it. Saturated: the target is missed"
        " and quality allows nothing faster.",
        (
            Query(f"max by (namespace, pod) ({oea('oea_controller_rung')})", "{{pod}} rung"),
            Query(
                f"max by (namespace, pod) ({oea('oea_controller_error_ratio')})",
                "{{pod}} over the target",
            ),
            Query(
                f"max by (namespace, pod) ({oea('oea_controller_saturated')})", "{{pod}} saturated"
            ),
            Query(f"max by (namespace, pod) ({oea('oea_controller_on')})", "{{pod}} on"),
        ),
        minimum=None,
        soft=(0, 1),
    ),
    Panel(
        "Controller: its target",
        "s",
        "What the controller is asked to hold: the mean time between two tokens of a request, or a"
        " percentile of it.",
        (Query(f"max by (namespace, pod) ({oea('oea_controller_target_seconds')})", "{{pod}}"),),
    ),
    Panel(
        "Configuration changes",
        "none",
        "Changes of the knobs of the running server, within the window. A restart returns to the"
        " flags.",
        (Query(by_pod(f"increase({oea('oea_config_changes_total')}[$window])")),),
    ),
)
