"""Why a forward pass ran the model's own top k."""

from __future__ import annotations

from collections.abc import Callable, Collection

from oea_server.engine.routers import Router
from oea_server.routing.policy import Policy

BYPASSES = ("policy", "schedule", "rows", "router", "prefill", "mixed", "other")
"""Reasons. In order: the policy does so at every batch size; the policy does so at this one; the
pass ran more rows than the fused launch takes on a GPU. Or no router can be handled; or the pass
was no decode step."""


def of_step(
    policy: Policy,
    routers: Collection[Router],
    num_experts: int,
    pools: Collection[int],
    beyond: Callable[[int], str],
) -> str | None:
    """Why a decode step is routed by the model's own top k in all layers, None if it is not.

    Args:
        routers: those that can be handled.
        pools: requests of each pool that the step has in a layer: of the step, or of each half.
        beyond: which bound of the fused launch the step is above where a token takes so many
        experts; empty if none.
    """
    if not routers:
        return "router"
    if policy.name == "vanilla":
        return "policy"
    if all(
        policy.is_vanilla(requests, router.layer, k=router.k, num_experts=num_experts)
        for requests in pools
        for router in routers
    ):
        return "schedule"
    return "rows" if all(beyond(router.k) for router in routers) else None
