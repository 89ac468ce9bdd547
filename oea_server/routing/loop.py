"""floor -> pool -> fill, weights and tally, one token and one expert at a time (arXiv 2511.02237,
section 3).

Interpreted, the loop is the reference that every other implementation is checked against. Compiled
by numba, which SGLang brings, it is what a CPU serves with (`entry`): between two MoE layers the
caches hold nothing of ours, and one small function costs less there than three torch operators."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from oea_server.routing.contract import RENORMALIZE_EPSILON
from oea_server.routing.loop_counts import add, count, note
from oea_server.routing.loop_data import (
    EPSILON,
    SOFTMAX,
    Array,
    Counters,
    Draw,
    Model,
    Rows,
    Seen,
    Where,
)
from oea_server.routing.loop_pools import depths, homes, seen_from, votes, widen
from oea_server.routing.loop_rows import members, score, shuffle, top
from oea_server.routing.policy import POOLS, Numbers
from oea_server.routing.tally import MASS_UNIT

BUDGET = POOLS.index("budget")


@register_jitable  # type: ignore[untyped-decorator]
def route(
    rows: Rows,
    model: Model,
    numbers: Numbers,
    draw: Draw,
    where: Where,
    counters: Counters,
    width: int,
) -> tuple[Array, Array, Array]:
    """Weights [B, width] float32, ids [B, width] int32, pool [N] bool: see
    `oea_server.routing.route`."""
    batch, n = rows.logits.shape
    seen = Seen(
        np.zeros(batch, dtype=np.bool_),
        np.empty((batch, n), dtype=np.float32),
        np.empty((batch, n), dtype=np.float32),
        np.ones((batch if model.groups > 1 else 0, n), dtype=np.bool_),
        np.empty((batch, model.k), dtype=np.int64),
        np.empty((batch, model.k), dtype=np.int64),
        np.zeros(batch, dtype=np.float32),
        np.zeros((batch, model.k), dtype=np.bool_),
    )

    # Phase 1: every token is guaranteed its best experts; together they are the pool.
    pool = np.zeros(n, dtype=np.bool_)
    for i in np.flatnonzero(rows.real):
        seen.whole[i] = read(i, rows, model, draw, seen)
        if seen.whole[i]:
            guarantee(i, rows, model, numbers, seen, pool)
    loaded = n - model.zeros  # the others compute nothing
    pool[loaded:] = False

    # Where each expert is read, and what its rank takes beside the floors.
    home = np.arange(n)
    if len(where.physical):
        home = homes(pool, where.physical, where.ranks, where.slots)
        where.home[:] = home
    if where.kind:
        could = min(numbers.limit, numbers.reach, model.k)
        wanted = votes(rows, model, seen, could)
        wanted[loaded:] = 0
        widen(
            pool,
            wanted,
            home // where.slots,
            where.ranks,
            where.budget if where.kind == BUDGET else 0,
        )

    # Phase 2: down its own ranking, a token adds experts that are awake anyway.
    least = depths(rows.drafts, seen, n)
    open_to = pool.copy()
    open_to[loaded:] = True
    awake = np.flatnonzero(open_to)
    weights = np.zeros((batch, width), dtype=np.float32)
    ids = np.empty((batch, width), dtype=np.int32)
    taken = np.zeros(batch, dtype=np.int64)
    kept = 0
    for i in range(batch):
        asked = asked_by(i, rows, model.k)
        exact = asked == model.k
        limit = asked if exact else max(numbers.limit, asked)
        if not seen.whole[i]:
            # any expert that is awake will do for a row that has no best
            ids[i] = np.argmax(open_to)
            weights[i, :limit] = np.nan if rows.real[i] else 0
            note(counters, seen, i, 0)
            continue
        near = within_reach(i, max(numbers.reach, asked), model, seen, open_to, awake)
        if len(least):
            near = near[seen_from(i, rows.drafts[i], least, seen)[near] | (near >= loaded)]
        chosen = np.empty(min(limit, width), dtype=np.int64)
        taken[i] = top(seen.choice[i], near, chosen)
        ids[i] = chosen[0]  # an unused slot wakes nobody
        ids[i, : taken[i]] = chosen[: taken[i]]
        mix = 1.0 if exact else numbers.mix
        share = weigh(chosen[: taken[i]], seen.scores[i], seen.mass_own[i], model, mix, weights[i])
        kept += note(counters, seen, i, share)

    if len(counters.row):
        count(counters, seen, pool, loaded, home, len(where.physical) > 0)
        add(counters, rows.real.sum(), taken.sum(), taken.sum() - seen.guaranteed.sum(), kept)
    return weights, ids, pool


@register_jitable  # type: ignore[untyped-decorator]
def read(i: int, rows: Rows, model: Model, draw: Draw, seen: Seen) -> bool:
    """Score a token's experts and rank them. False in a broken row, of which the rest means
    nothing."""
    logits, scores, choice = rows.logits[i], seen.scores[i], seen.choice[i]
    if not np.isfinite(score(logits, model.scoring, scores)):
        return False
    # logits order as their scores do
    if len(model.bias):
        choice[:] = scores + model.bias
    else:
        choice[:] = logits
    candidates = np.arange(len(logits))
    if model.groups > 1:
        members(scores, choice, model, seen.member[i])
        candidates = np.flatnonzero(seen.member[i])
    top(choice, candidates, seen.own[i])
    seen.best[i] = seen.own[i]
    if draw.on and asked_by(i, rows, model.k) == 0:
        shuffle(logits, i, draw, choice)
        top(choice, candidates, seen.best[i])
    for expert in seen.own[i]:
        seen.mass_own[i] += scores[expert]
    return True


@register_jitable  # type: ignore[untyped-decorator]
def asked_by(i: int, rows: Rows, k: int) -> int:
    """How many of its own best experts a row asks for, 0 where it asks for none."""
    return min(abs(rows.k0[i]), k) if len(rows.k0) else 0


@register_jitable  # type: ignore[untyped-decorator]
def guarantee(i: int, rows: Rows, model: Model, numbers: Numbers, seen: Seen, pool: Array) -> None:
    """A token's floor: the policy's, the top that its row asks for, or both."""
    scores, best, asked = seen.scores[i], seen.best[i], asked_by(i, rows, model.k)
    instead = asked > 0 and rows.k0[i] > 0 and numbers.floor < model.k
    floor = numbers.floor
    if len(rows.drafts) and rows.drafts[i] != 0:
        floor = min(floor, numbers.draft_floor)
    share = np.float32(numbers.share)
    whole = 1.0
    if numbers.p < 1.0 and model.scoring != SOFTMAX:
        whole = np.float64(scores.sum()) + RENORMALIZE_EPSILON
    mass = 0.0
    for rank in range(asked if instead else max(asked, floor)):
        held = scores[best[rank]]
        if rank >= asked and numbers.p < 1.0 and mass / whole >= numbers.p:
            break
        mass += np.float64(held)
        if rank < asked or rank == 0 or share == 0 or held > share * seen.mass_own[i]:
            seen.guaranteed[i, rank] = True
            pool[best[rank]] = True


@register_jitable  # type: ignore[untyped-decorator]
def within_reach(i: int, reach: int, model: Model, seen: Seen, pool: Array, awake: Array) -> Array:
    """The experts of the pool that a token may take, in rising order: of its own groups, and of its
    first ranks."""
    n = len(pool)
    if reach >= n:
        return awake if model.groups == 1 else awake[seen.member[i][awake]]
    candidates = np.arange(n) if model.groups == 1 else np.flatnonzero(seen.member[i])
    near = np.empty(reach, dtype=np.int64)
    near = near[: top(seen.choice[i], candidates, near)]
    return np.sort(near[pool[near]])


@register_jitable  # type: ignore[untyped-decorator]
def weigh(
    chosen: Array, scores: Array, mass_own: Any, model: Model, mixture: float, weights: Array
) -> int:
    """The model's own scores over the chosen set. Returns the share of the token's own mass that
    they hold, in units of 1 / MASS_UNIT."""
    mass = np.float32(0)
    for slot in range(len(chosen)):
        weights[slot] = scores[chosen[slot]]
        mass += scores[chosen[slot]]
    if model.renormalize:
        mix = np.float32(mixture)
        weights /= (mass if mix == 1 else mix * mass + (np.float32(1) - mix) * mass_own) + EPSILON
    if len(model.expert_scale):
        for slot in range(len(chosen)):
            weights[slot] *= model.expert_scale[chosen[slot]]
    if model.scale != 1.0:
        weights *= np.float32(model.scale)
    return int(
        min(mass / (mass_own + EPSILON), np.float32(len(chosen))) * np.float32(MASS_UNIT)
        + np.float32(0.5)
    )
