"""`oea_server.routing.loop` on torch's tensors: compiled, which serves a CPU, and interpreted, the reference."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import njit

from oea_server.routing import loop
from oea_server.routing.contract import SCORINGS, Router, Routing, check, is_union, placement_of, real_rows, width_of
from oea_server.routing.placement import Placement
from oea_server.routing.policy import Numbers, Policy
from oea_server.routing.tally import HostTally, Tally

NOTHING = np.empty(0, dtype=np.int64)
NO_NUMBERS = np.empty(0, dtype=np.float32)
NO_MAP = np.empty((0, 1), dtype=np.int64)
NO_HOME = np.empty(0, dtype=np.int32)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, and keep the result where there is a place for it."""
    try:
        found = njit(cache=True)(function)
    except RuntimeError:  # neither this folder nor the user's cache can be written
        return njit(function)  # type: ignore[no-any-return]
    keep = found._cache.save_overload

    def keep_if_it_can_be(*compiled: Any) -> None:
        with contextlib.suppress(OSError):  # it is full, or read-only by now
            keep(*compiled)

    found._cache.save_overload = keep_if_it_can_be
    return found  # type: ignore[no-any-return]


_compiled_loop = compiled(loop.route)


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
    requests: torch.Tensor | None = None,
    placement: Placement | None = None,
    tally: Tally | None = None,
    by: Callable[..., Any] | None = None,
) -> Routing:
    """See `oea_server.routing.route`: same arguments, same result, for tensors on the CPU.

    Args:
        by: the loop that routes; the compiled one, if not given.
    """
    batch, num_experts = router_logits.shape
    check(router_logits, policy, router, row_k0, requests)
    real = _real(batch, num_real)
    tokens = int(np.count_nonzero(real))
    whose = NOTHING if requests is None else requests.long().numpy()
    numbers = _numbers(
        policy, tokens, layer, router.k, num_experts, None if requests is None else len(np.unique(whose[real]))
    )
    rows = loop.Rows(
        router_logits.float().contiguous().numpy(), real, NOTHING if row_k0 is None else row_k0.long().numpy(), whose
    )
    weights, ids, pool = (by or _compiled_loop)(
        rows,
        _model(router),
        numbers,
        loop.Draw(policy.name == "random", policy.seed, layer),
        _where(policy, placement_of(policy, placement, num_experts, router_logits.device)),
        _counters(tally, layer),
        width_of(policy, router.k),
    )
    return Routing(torch.from_numpy(weights), torch.from_numpy(ids), torch.from_numpy(pool))


def reference(router_logits: torch.Tensor, policy: Policy, router: Router, **given: Any) -> Routing:
    """The same by the same loop, interpreted: slow, and as the paper has it."""
    with np.errstate(all="ignore"):  # broken rows
        return route(router_logits, policy, router, **given, by=loop.route)


def _real(batch: int, num_real: int | torch.Tensor | None) -> loop.Array:
    """`contract.real_rows` by numpy, which takes a fifth of the time."""
    if isinstance(num_real, torch.Tensor) and num_real.dtype == torch.bool:
        return real_rows(batch, num_real, num_real.device).numpy()
    return np.arange(batch) < (batch if num_real is None else int(num_real))


@lru_cache(maxsize=65_536)
def _numbers(policy: Policy, tokens: int, layer: int, k: int, num_experts: int, requests: int | None) -> Numbers:
    """`Policy.numbers`, looked up rather than worked out in every layer."""
    return policy.numbers(tokens, layer, k=k, num_experts=num_experts, requests=requests)


def _model(router: Router) -> loop.Model:
    return loop.Model(
        router.k,
        SCORINGS.index(router.scoring),
        _by_expert(router.bias),
        router.groups,
        router.top_groups,
        router.group_score == "top2",
        router.renormalize,
        router.scale,
        _by_expert(router.expert_scale),
        router.zero_experts,
    )


def _by_expert(numbers: torch.Tensor | None) -> loop.Array:
    return NO_NUMBERS if numbers is None else numbers.detach().float().flatten().contiguous().numpy()


def _where(policy: Policy, place: Placement | None) -> loop.Where:
    if place is None:
        return loop.Where(NO_MAP, NO_HOME, 1, 1, 0, 0)
    room = policy.room
    kind = 0 if is_union(room, place.ranks) else room.kind
    return loop.Where(place.physical.long().numpy(), place.home.numpy(), place.ranks, place.slots, kind, room.budget)


def _counters(tally: Tally | None, layer: int) -> loop.Counters:
    if tally is None:
        return loop.Counters(NOTHING, 0, 1, 1, False)
    counting = int(tally.counting_on_host if isinstance(tally, HostTally) else tally.counting)
    return loop.Counters(tally.data[tally.row[layer]].numpy(), counting, tally.num_experts, tally.ranks, tally.placed)
