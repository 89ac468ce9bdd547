"""floor -> pool -> fill, weights and tally in one compiled loop: what the CPU runs in decode.

Between two MoE layers the caches hold nothing of ours, and each torch operator then costs tens of
microseconds; one small function costs less than its first three. Compiled by numba, which SGLang
brings, once per machine. All in one file: numba does not notice when what a function calls has changed in another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba import carray, njit, types
from numba.extending import intrinsic

from oea_server.routing import eager
from oea_server.routing.eager import RENORMALIZE_EPSILON, Routing, Scoring, is_union, placement_of, width_of
from oea_server.routing.knobs import Knobs
from oea_server.routing.placement import Placement
from oea_server.routing.policy import POOLS, Numbers, Policy
from oea_server.routing.tally import HISTOGRAMS, MASS_UNIT, SUMS, HostTally
from oea_server.routing.widen import VOTE

Array = npt.NDArray[Any]

EPSILON = np.float32(RENORMALIZE_EPSILON)
SUM_COUNT = len(SUMS)
VOTE_UNIT = np.float32(VOTE)
BUDGET = POOLS.index("budget")
NOWHERE = torch.empty(0, 1, dtype=torch.int32)


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


def warm_up(k: int, num_experts: int) -> None:
    """Compile, which takes seconds where it was not kept, before there is traffic."""
    route(torch.zeros(2, num_experts), Policy.vanilla(), k=k)


def route(
    router_logits: torch.Tensor,
    policy: Policy | Knobs,
    *,
    k: int,
    renormalize: bool = True,
    num_real: int | torch.Tensor | None = None,
    layer: int = 0,
    scoring: Scoring = "softmax",
    bias: torch.Tensor | None = None,
    tally: HostTally | None = None,
    placement: Placement | None = None,
) -> Routing:
    """See `oea_server.routing.route`: same arguments, same result, for tensors on the CPU.

    Random routing and knobs in device memory, which no CPU step uses, are left to `eager`.
    """
    if not isinstance(policy, Policy) or policy.name == "random":
        return eager.route(
            router_logits,
            policy,
            k=k,
            renormalize=renormalize,
            num_real=num_real,
            layer=layer,
            scoring=scoring,
            bias=bias,
            tally=tally,
            placement=placement,
        )
    batch, num_experts = router_logits.shape
    tokens = batch if num_real is None else min(max(int(num_real), 0), batch)
    floor, limit, reach = _numbers(policy, tokens, layer, k, num_experts)
    if router_logits.dtype not in (torch.bfloat16, torch.float32) or not router_logits.is_contiguous():
        router_logits = router_logits.float().contiguous()
    if bias is not None:
        bias = bias.float().contiguous()
    place = placement_of(policy, placement, num_experts, router_logits.device)
    room = policy.room
    kind = 0 if place is None or is_union(room, place.ranks) else room.kind
    where = NOWHERE if place is None else place.physical
    # addresses and integers: an array or a bool takes numba microseconds longer to unwrap
    weights, ids, pool = _route(
        router_logits.data_ptr(),
        batch,
        num_experts,
        router_logits.itemsize,
        0 if bias is None else bias.data_ptr(),
        int(scoring == "sigmoid"),
        tokens,
        floor,
        limit,
        reach,
        policy.p,
        k,
        width_of(policy, k),
        int(renormalize),
        0 if tally is None else tally.addresses[layer],
        0 if tally is None else int(tally.counting_on_host),
        0 if tally is None else tally.num_experts,
        1 if tally is None else tally.ranks,
        0 if tally is None else int(tally.placed),
        kind,
        room.budget,
        1 if place is None else place.ranks,
        num_experts if place is None else place.slots,
        0 if place is None else where.data_ptr(),
        where.shape[1],
        where.itemsize,
        0 if place is None else place.home.data_ptr(),
    )
    return Routing(torch.from_numpy(weights), torch.from_numpy(ids), torch.from_numpy(pool))


@lru_cache(maxsize=65_536)
def _numbers(policy: Policy, tokens: int, layer: int, k: int, num_experts: int) -> Numbers:
    """`Policy.numbers` of a policy that fits, looked up rather than worked out in every layer."""
    if not 1 <= k <= num_experts:
        raise ValueError(f"k={k} is outside 1..{num_experts}, the number of experts")
    policy.check(k=k, num_experts=num_experts)
    return policy.numbers(tokens, layer, k=k, num_experts=num_experts)


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typing_context: Any, address: Any) -> Any:
    """An address as a pointer: a tensor's own way to numpy takes longer than all of the routing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@compiled
def _read(address: int, rows: int, columns: int, bytes_each: int) -> Array:
    """[rows, columns] float32 from contiguous float32, or bfloat16, which is the upper half of it."""
    if bytes_each == 4:
        floats: Array = carray(_pointer(address), (rows, columns), np.float32)
        return floats.copy()
    given = carray(_pointer(address), (rows, columns), np.int16)
    bits = np.empty((rows, columns), dtype=np.int32)
    for row in range(rows):
        for column in range(columns):
            bits[row, column] = given[row, column] << 16
    return bits.view(np.float32)


@compiled
def _integers(address: int, rows: int, columns: int, bytes_each: int) -> Array:
    """[rows, columns] int64 from contiguous int32 or int64."""
    if bytes_each == 4:
        small: Array = carray(_pointer(address), (rows, columns), np.int32)
        return small.astype(np.int64)
    given: Array = carray(_pointer(address), (rows, columns), np.int64)
    return given.copy()


@compiled
def _route(
    address: int,
    batch: int,
    num_experts: int,
    bytes_each: int,
    bias_address: int,
    sigmoid: int,
    real: int,
    floor: int,
    limit: int,
    reach: int,
    p: float,
    k: int,
    width: int,
    renormalize: int,
    tally_address: int,
    once: int,
    tallied: int,
    ranks: int,
    placed: int,
    kind: int,
    budget: int,
    pool_ranks: int,
    slots: int,
    physical_address: int,
    replicas: int,
    physical_bytes: int,
    home_address: int,
) -> tuple[Array, Array, Array]:
    logits = _read(address, real, num_experts, bytes_each)
    bias = _read(bias_address, 1 if bias_address else 0, num_experts, 4)
    scores = np.empty((real, num_experts), dtype=np.float32)
    order = np.empty((real, num_experts), dtype=np.int32)
    best = np.empty((real, k), dtype=np.int32)
    broken = np.zeros(real, dtype=np.bool_)
    everyone = np.arange(num_experts)

    # Phase 1: every token is guaranteed its best experts; together they are the pool.
    pool = np.zeros(num_experts, dtype=np.bool_)
    guaranteed = 0
    for i in range(real):
        total = _score(logits[i], bias, sigmoid, scores[i], order[i])
        if np.isnan(total):
            broken[i] = True
            continue
        _take(order[i], everyone, best[i])
        mass = 0.0
        for rank in range(floor):
            if p < 1.0 and mass / total >= p:
                break
            pool[best[i, rank]] = True
            guaranteed += 1
            mass += scores[i, best[i, rank]]

    home = everyone
    if home_address:
        physical = _integers(physical_address, num_experts, replicas, physical_bytes)
        home = _homes(pool, physical, pool_ranks, slots)
        out = carray(_pointer(home_address), num_experts, np.int32)
        out[:] = home
    if kind:
        wanted = np.zeros(num_experts, dtype=np.int64)
        for i in np.flatnonzero(~broken):
            _vote(logits[i], scores[i], sigmoid, best[i], min(limit, reach, k), wanted)
        _widen(pool, wanted, home // slots, pool_ranks, budget if kind == BUDGET else 0)

    # Phase 2: each token's best experts of the pool, its own floor first among them.
    awake = np.flatnonzero(pool)
    weights = np.zeros((batch, width), dtype=np.float32)
    ids = np.zeros((batch, width), dtype=np.int32)
    chosen = np.empty(min(limit, width), dtype=np.int32)
    near = np.empty(reach, dtype=np.int64)
    taken = 0
    kept = 0
    # any expert that is awake will do for a row that has no best
    anyone = np.argmax(pool)
    for i in range(real):
        if broken[i]:
            ids[i] = anyone
            weights[i, :limit] = np.nan
            continue
        candidates = awake
        if reach < num_experts:
            _take(order[i], everyone, near)
            candidates = np.sort(near[pool[near]])
        found = _take(order[i], candidates, chosen)
        mass_chosen = np.float32(0)
        for slot in range(width):
            expert = chosen[slot if slot < found else 0]
            ids[i, slot] = expert
            if slot < found:
                weights[i, slot] = scores[i, expert]
                mass_chosen += scores[i, expert]
        if renormalize:
            weights[i] /= mass_chosen + EPSILON
        if tallied:
            mass_own = np.float32(0)
            for expert in best[i]:
                mass_own += scores[i, expert]
            taken += found
            share_kept = min(mass_chosen / (mass_own + EPSILON), np.float32(found))
            kept += int(share_kept * MASS_UNIT + 0.5)
    ids[real:] = anyone

    if tallied:
        bins = tallied + 1
        tally = carray(_pointer(tally_address), HISTOGRAMS * bins + SUM_COUNT, np.int64)
        share = tallied // ranks
        if not placed:
            tally[pool.sum()] += once
            if ranks > 1:
                tally[bins + _busiest(pool, home // share, ranks)] += once
        vanilla = np.zeros(num_experts, dtype=np.bool_)
        for i in np.flatnonzero(~broken):
            vanilla[best[i]] = True
        tally[2 * bins + vanilla.sum()] += once
        if ranks > 1 and (home_address or not placed):
            tally[3 * bins + _busiest(vanilla, home // share, ranks)] += once
        sums = tally[HISTOGRAMS * bins :]
        sums[0] += real * once
        sums[1] += taken * once
        sums[2] += (taken - guaranteed) * once
        sums[3] += kept * once
    return weights, ids, pool


@compiled
def _score(logits: Array, bias: Array, sigmoid: int, scores: Array, order: Array) -> float:
    """One token's scores, and integers that order its experts. Returns what its router mass is a share of: NaN in a
    broken row, of which the rest means nothing."""
    top = np.float32(0) if sigmoid else logits.max()
    total = np.float32(0)
    for expert in range(len(logits)):
        if sigmoid:
            scores[expert] = np.float32(1) / (np.float32(1) + np.exp(-logits[expert]))
        else:
            scores[expert] = np.exp(logits[expert] - top)
        total += scores[expert]
    if not sigmoid:
        scores /= total
    preference = logits if len(bias) == 0 else scores + bias[0]
    bits = preference.view(np.int32)
    for expert in range(len(logits)):
        # negative floats run backwards; -0.0 is 0.0
        order[expert] = bits[expert] if bits[expert] >= 0 else -(1 << 31) - bits[expert]
    return np.float64(total) + RENORMALIZE_EPSILON if sigmoid or np.isnan(total) else 1.0


@compiled
def _vote(logits: Array, scores: Array, sigmoid: int, best: Array, could: int, wanted: Array) -> None:
    """One token's votes for those of its own top k that it could take: see `widen.votes`."""
    values = np.empty(len(best), dtype=np.float32)
    top = np.float32(0) if sigmoid else logits.max()
    mass = np.float32(0)
    for rank in range(len(best)):
        values[rank] = scores[best[rank]] if sigmoid else np.exp(logits[best[rank]] - top)
        mass += values[rank]
    for rank in range(could):
        share = values[rank] / (mass + EPSILON)
        square = share * share
        wanted[best[rank]] += np.int64(square * square * VOTE_UNIT)


@compiled
def _homes(pool: Array, physical: Array, ranks: int, slots: int) -> Array:
    """Which physical expert each expert is read from: see `widen.homes`."""
    home = physical[:, 0].copy()
    if physical.shape[1] == 1:
        return home
    load = np.zeros(ranks, dtype=np.int64)
    for expert in np.flatnonzero(pool):
        if physical[expert, 1] < 0:
            load[home[expert] // slots] += 1
    for in_pool in (True, False):
        for expert in range(len(pool)):
            if pool[expert] == in_pool and physical[expert, 1] >= 0:
                for each in physical[expert]:
                    if each >= 0 and (load[each // slots], each) < (load[home[expert] // slots], home[expert]):
                        home[expert] = each
                load[home[expert] // slots] += 1
    return home


@compiled
def _widen(pool: Array, wanted: Array, rank_of: Array, ranks: int, budget: int) -> None:
    """Let each rank take its most wanted experts, up to the busiest one's count or to a budget: see `widen.widen`."""
    load = np.zeros(ranks, dtype=np.int64)
    for expert in np.flatnonzero(pool):
        load[rank_of[expert]] += 1
    target = budget if budget else load.max()
    for expert in np.argsort(-wanted, kind="mergesort"):
        if wanted[expert] > 0 and not pool[expert] and load[rank_of[expert]] < target:
            pool[expert] = True
            load[rank_of[expert]] += 1


@compiled
def _busiest(experts: Array, rank_of: Array, ranks: int) -> int:
    """The most experts of a set on one rank."""
    load = np.zeros(ranks, dtype=np.int64)
    for expert in np.flatnonzero(experts):
        load[rank_of[expert]] += 1
    most: int = load.max()
    return most


@compiled
def _take(order: Array, candidates: Array, out: Array) -> int:
    """The best of the candidates, given in rising order, into `out`: best first, ties to the lowest id.
    Returns how many there are."""
    found = 0
    for expert in candidates:
        if found == len(out) and order[expert] <= order[out[found - 1]]:
            continue
        if found < len(out):
            found += 1
        place = found - 1
        while place > 0 and order[out[place - 1]] < order[expert]:
            out[place] = out[place - 1]
            place -= 1
        out[place] = expert
    return found
