"""Pools that know the ranks: after the floors, each rank takes its most wanted experts into the
room that is free.

A layer is as slow as its busiest rank, so on the others there is room that costs nothing.
Vectorised torch; see `eager`, which it is a part of."""

from __future__ import annotations

import torch

from oea_server.routing.contract import RENORMALIZE_EPSILON
from oea_server.routing.placement import Placement
from oea_server.routing.policy import POOLS, Numbers, Room
from oea_server.routing.ranking import ID_BITS, ID_MASK, arange, expert_of

VOTE = float(1 << 30)
"""Votes are summed in integers of 1 / VOTE: the same in any order, on every rank."""


def in_order(values: torch.Tensor) -> torch.Tensor:
    """The sum over the last dimension, first to last: another order would round otherwise, and part
    what is tied."""
    total = values[..., 0]
    for place in range(1, values.shape[-1]):
        total = total + values[..., place]
    return total


def could_take(
    numbers: Numbers, room: Room, ranks: int, k: int, device: torch.device
) -> torch.Tensor:
    """Places of its own top k that a token votes for, as far as it could take them; none if the
    pool is not widened. [k] bool."""
    place = arange(k, device)
    kinds = ("fill", "budget") if ranks > 1 else ("budget",)
    widened = torch.stack([_is(room, kind, device) for kind in kinds]).any()
    return (place < numbers.limit) & (place < numbers.reach) & widened


def votes(best: torch.Tensor, values: torch.Tensor, could: torch.Tensor, n: int) -> torch.Tensor:
    """How much each expert is wanted. The sum over tokens of (weight / mass of the token's own top
    k)^4, over those of its own top k that the token could take. [..., n] int64, in units of 1 /
    VOTE.

    Args:
        best: [..., B, k] keys of each token's own top k, best first.
        values: [..., B, k] what its weights are proportional to: exp(logit - best logit), or other
            scores.
        could: [..., B, k] bool.
    """
    square = (values / (in_order(values)[..., None] + RENORMALIZE_EPSILON)).square()
    each = torch.where(could, (square * square * VOTE).long(), 0)
    total = torch.zeros(*best.shape[:-2], n, dtype=torch.int64, device=best.device)
    return total.scatter_add(-1, expert_of(best).flatten(-2), each.flatten(-2))


def homes(pool: torch.Tensor, placement: Placement) -> torch.Tensor:
    """Which physical expert each expert is read from: of several the one on the least loaded rank,
    the pool's before the others', each by id. [..., N] int64."""
    physical = placement.physical.long()
    n, spare, slots = len(physical), placement.spare, placement.slots
    home = physical[:, 0].expand(*pool.shape[:-1], n)
    if not spare:
        return home
    several = (physical[:, 1:] >= 0).any(dim=-1)
    load = torch.zeros(*pool.shape[:-1], placement.ranks, dtype=torch.int64, device=pool.device)
    load = load.scatter_add(-1, home // slots, (pool & ~several).long())
    number = arange(n, pool.device)
    order = torch.where(several, torch.where(pool, number, number + n), 2 * n).argsort(dim=-1)[
        ..., :spare
    ]
    for place in range(min(spare, n)):
        expert = order[..., place : place + 1]
        where = physical[expert[..., 0]]  # [..., X]
        cost = load.gather(-1, where.clamp(min=0) // slots) * (slots * placement.ranks) + where
        least = torch.where(where >= 0, cost, torch.iinfo(torch.int64).max).amin(
            dim=-1, keepdim=True
        )
        chosen = torch.where(
            several[expert], least % (slots * placement.ranks), home.gather(-1, expert)
        )
        home = home.scatter(-1, expert, chosen)
        load = load.scatter_add(-1, chosen // slots, several[expert].long())
    return home


def widen(
    pool: torch.Tensor, wanted: torch.Tensor, home: torch.Tensor, placement: Placement, room: Room
) -> torch.Tensor:
    """The pool and, on each rank, the most wanted experts beside it, ties to the lowest id. Each
    rank takes up to the busiest rank's count (`fill`) or up to the budget. An expert that no token
    wants is never taken. [..., N] bool."""
    n, rank = pool.shape[-1], home // placement.slots
    load = torch.zeros(*pool.shape[:-1], placement.ranks, dtype=torch.int64, device=pool.device)
    load = load.scatter_add(-1, rank, pool.long())
    target = torch.where(
        _is(room, "budget", pool.device), _tensor(room.budget, pool.device), load.amax(dim=-1)
    )
    free = torch.where(_is(room, "union", pool.device), 0, (target[..., None] - load).clamp(min=0))
    keys = (wanted << ID_BITS) | (~arange(n, pool.device) & ID_MASK)
    keys = torch.where((wanted > 0) & ~pool, keys, -1)
    order = keys.argsort(dim=-1, descending=True)
    of_rank = rank.gather(-1, order)[..., None] == arange(placement.ranks, pool.device)
    candidate = keys.gather(-1, order) >= 0
    place = (of_rank & candidate[..., None]).cumsum(dim=-2)  # [..., N, R]
    takes = candidate & (of_rank & (place <= free[..., None, :])).any(dim=-1)
    return pool | torch.zeros_like(pool).scatter(-1, order, takes)


def _is(room: Room, name: str, device: torch.device) -> torch.Tensor:
    return _tensor(room.kind, device) == POOLS.index(name)


def _tensor(value: int | torch.Tensor, device: torch.device) -> torch.Tensor:
    return torch.as_tensor(value, device=device)
