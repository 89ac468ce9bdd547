"""Where SGLang's ranks keep a layer's experts, and which copy of an expert a step reads.

Seams: `ExpertLocationMetadata.logical_to_all_physical_map`, which EPLB changes in place when it
rebalances, and the argument `expert_location_dispatch_info` of `select_experts`, by which SGLang
maps what a router chose."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from oea_server.routing.placement import Placement, contiguous

Where = Callable[[int], Placement | None]
"""A layer -> where its experts lie; None on one rank."""


def nowhere(layer: int) -> Placement | None:
    """Placement on one rank, which has all experts."""
    return None


def in_order(num_experts: int, ranks: int, device: torch.device) -> Where:
    """Placement without EPLB: equal shares, in order."""
    place = contiguous(num_experts, ranks, device)
    return lambda layer: place


def by_map(num_experts: int, ranks: int, device: torch.device) -> Where:
    """Placement with EPLB: as the map says at that step."""
    homes: dict[int, torch.Tensor] = {}

    def where(layer: int) -> Placement | None:
        from sglang.srt.eplb.expert_location import get_global_expert_location_metadata

        found = get_global_expert_location_metadata()
        if layer not in homes:
            homes[layer] = torch.zeros(num_experts, dtype=torch.int32, device=device)
        slots = found.num_physical_experts // ranks
        return Placement(ranks, slots, found.logical_to_all_physical_map[layer], homes[layer])

    return where


def dispatched(info: Any, place: Placement | None) -> Any:
    """SGLang's dispatch info for the copies that the routing chose. SGLang would spread tokens over
    all copies, and each copy that a step reads is one more expert to read."""
    if info is None or place is None or not place.spare:
        return info
    return dataclasses.replace(
        info,
        ep_dispatch_algorithm="static",
        partial_logical_to_rank_dispatch_physical_map=place.home,
    )
