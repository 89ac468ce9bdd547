"""Many decode steps, each routed by the implementation that serves on the logits' device."""

from __future__ import annotations

from typing import NamedTuple

import torch

from oea_server.lab.quality.routed import Routers
from oea_server.routing import fastest
from oea_server.routing.policy import Policy


class Routed(NamedTuple):
    """A `Routing` of many steps, and what routed them.

    Args:
        weights: [..., B, width] float32.
        ids: [..., B, width] int32.
        pool: [..., N] bool.
        by: host, fused or eager (`routing.fastest`); rules where the server has no such policy.
    """

    weights: torch.Tensor
    ids: torch.Tensor
    pool: torch.Tensor
    by: str


def route(
    logits: torch.Tensor,
    policy: Policy,
    found: Routers,
    layer: int,
    num_real: int | None = None,
) -> Routed:
    """Route logits [..., B, N] in the model's own dtype, as a server on this device would.

    The compiled loop and the kernel take one step [B, N] at a time, as they do in a server.
    """
    *leading, batch, num_experts = logits.shape
    way = fastest.way(logits.device, batch, num_experts, policy.width(found.k))
    router = found.each[layer]
    if way.name == "eager":
        return Routed(*way.route(logits, policy, router, layer=layer, num_real=num_real), way.name)
    steps = logits.reshape(-1, batch, num_experts).contiguous()
    routings = [way.route(step, policy, router, layer=layer, num_real=num_real) for step in steps]
    weights, ids, pool = (
        torch.stack(parts).view(*leading, *parts[0].shape) for parts in zip(*routings, strict=True)
    )
    return Routed(weights, ids, pool, way.name)
