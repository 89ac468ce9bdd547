"""`oea_server.routing.loop` on torch's tensors: compiled, which serves a CPU, and interpreted, the
reference."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from oea_server.routing import contract, entry
from oea_server.routing.contract import SCORINGS, Router, Routing, is_union, placement_of, width_of
from oea_server.routing.entry import FLOATS, INTEGERS, KINDS
from oea_server.routing.placement import Placement
from oea_server.routing.policy import Policy
from oea_server.routing.tally import Tally


class Plan(NamedTuple):
    """The last arguments of `entry.enter`: what a policy and a router ask of a step."""

    numbers: tuple[Any, ...]
    k: int
    scoring: int
    groups: int
    top_groups: int
    top2: int
    renormalize: int
    scale: float
    zeros: int
    at_random: int
    seed: int
    layer: int
    width: int


NOWHERE = (0, 0, 1, 0, 1, 1, 0, 0)
NOT_COUNTED = (0, 0, 1, 1, 0, 0, 0)
"""Arguments of `entry.enter` where there is no map, and no tally."""


def warm_up(k: int, num_experts: int) -> None:
    """Compile, which takes seconds where it was not kept, before there is traffic."""
    route(torch.zeros(2, num_experts), Policy.vanilla(), Router(k))


def route(
    router_logits: torch.Tensor,
    policy: Policy,
    router: Router,
    *,
    num_real: int | torch.Tensor | None = None,
    layer: int = 0,
    row_k0: torch.Tensor | None = None,
    drafts: torch.Tensor | None = None,
    placement: Placement | None = None,
    tally: Tally | None = None,
    by: Callable[..., Any] | None = None,
) -> Routing:
    """See `oea_server.routing.route`: same arguments, same result, for tensors on the CPU.

    Args:
        by: the loop that routes; the compiled one, if not given.
    """
    # each line here is paid for with the caches cold, in every layer: what may be absent costs
    # nothing then
    batch, num_experts = router_logits.shape
    if router_logits.dtype not in FLOATS or not router_logits.is_contiguous():
        router_logits = router_logits.float().contiguous()
    tokens, mask = batch, None
    if num_real is not None:
        if isinstance(num_real, torch.Tensor) and num_real.dtype == torch.bool:
            mask = contract.real_rows(batch, num_real, num_real.device).contiguous()
            tokens = int(mask.sum())
        else:
            tokens = min(max(int(num_real), 0), batch)
    requests = tokens
    if row_k0 is not None or drafts is not None:
        contract.check_rows(batch, row_k0, drafts)
        row_k0, drafts = (
            None if each is None else each.long().contiguous() for each in (row_k0, drafts)
        )
        if drafts is not None:
            requests = int((drafts[slice(tokens) if mask is None else mask] == 0).sum())
    bias, scale, physical = router.bias, router.expert_scale, None
    if bias is not None:
        bias = _held(bias.detach(), FLOATS)
    if scale is not None:
        scale = _held(scale.detach(), FLOATS)
    if placement is None and policy.pool != "union":
        placement = placement_of(policy, None, num_experts, router_logits.device)
    if placement is not None:
        physical = _held(placement.physical, INTEGERS)
    weights, ids, pool = (by or entry.compiled_enter)(
        router_logits.data_ptr(),
        KINDS[router_logits.dtype],
        batch,
        num_experts,
        tokens,
        0 if mask is None else mask.data_ptr(),
        0 if row_k0 is None else row_k0.data_ptr(),
        0 if drafts is None else drafts.data_ptr(),
        *((0, 0) if bias is None else (bias.data_ptr(), KINDS[bias.dtype])),
        *((0, 0) if scale is None else (scale.data_ptr(), KINDS[scale.dtype])),
        *(
            NOWHERE
            if placement is None or physical is None
            else _where(policy, placement, physical, drafts is not None)
        ),
        *(NOT_COUNTED if tally is None else tally.at[layer]),
        *_plan(policy, router, num_experts, requests, layer),
    )
    return Routing(torch.from_numpy(weights), torch.from_numpy(ids), torch.from_numpy(pool))


def reference(router_logits: torch.Tensor, policy: Policy, router: Router, **given: Any) -> Routing:
    """`route` by the same loop, interpreted: slow, and as the paper has it."""
    with np.errstate(all="ignore"):  # broken rows
        return route(router_logits, policy, router, **given, by=entry.enter)


@lru_cache(maxsize=16_384)
def _plan(policy: Policy, router: Router, num_experts: int, requests: int, layer: int) -> Plan:
    """Checked and worked out once, then looked up.

    Raises:
        ValueError: as `contract.check`.
    """
    contract.check_model(policy, router, num_experts)
    return Plan(
        tuple(policy.numbers(requests, layer, k=router.k, num_experts=num_experts)),
        router.k,
        SCORINGS.index(router.scoring),
        router.groups,
        router.top_groups,
        int(router.group_score == "top2"),
        int(router.renormalize),
        float(router.scale),
        router.zero_experts,
        int(policy.name == "random"),
        policy.seed,
        layer,
        width_of(policy, router.k),
    )


def _held(numbers: torch.Tensor, kinds: tuple[torch.dtype, ...]) -> torch.Tensor:
    """The numbers one after the other, as one of the kinds; themselves, if they are."""
    return (numbers if numbers.dtype in kinds else numbers.to(kinds[0])).contiguous()


def _where(
    policy: Policy, place: Placement, physical: torch.Tensor, verifies: bool
) -> tuple[int, ...]:
    room = policy.room
    kind = 0 if verifies or is_union(room, place.ranks) else room.kind
    map_of = physical.data_ptr(), KINDS[physical.dtype], physical.shape[1], place.home.data_ptr()
    return *map_of, place.ranks, place.slots, kind, room.budget
