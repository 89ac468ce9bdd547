"""floor -> pool -> fill, weights and tally, one token and one expert at a time (arXiv 2511.02237, section 3).

Interpreted, the loop is the reference that every other implementation is checked against. Compiled by numba, which
SGLang brings, it is what a CPU serves with: between two MoE layers the caches hold nothing of ours, and one small
function costs less there than three torch operators. All of it is in one file: numba does not notice when what a
function calls has changed in another.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba.extending import register_jitable

from oea_server.routing.contract import RENORMALIZE_EPSILON, SCORINGS
from oea_server.routing.policy import POOLS, Numbers
from oea_server.routing.tally import (
    ASSIGNMENTS,
    BUSIEST,
    HISTOGRAMS,
    MASS_KEPT,
    MASS_UNIT,
    PIGGYBACKED,
    TOKENS,
    UNIQUE,
    VANILLA,
    VANILLA_BUSIEST,
)
from oea_server.routing.widen import VOTE

Array = npt.NDArray[Any]

EPSILON = np.float32(RENORMALIZE_EPSILON)
VOTE_UNIT = np.float32(VOTE)
BUDGET = POOLS.index("budget")
SOFTMAX, SIGMOID = SCORINGS.index("softmax"), SCORINGS.index("sigmoid")
DEEPEST = np.iinfo(np.int64).max


class Rows(NamedTuple):
    """The rows of a step.

    Args:
        logits: [B, N] float32.
        real: [B] bool, which of them are tokens.
        k0: [B] int64, the floor that a row asks for itself, 0 where it does not; empty if none does.
        drafts: [B] int64, 0 for tokens, j for the j-th guess in a chain, -1 for one in a tree; empty if all are tokens.
    """

    logits: Array
    real: Array
    k0: Array
    drafts: Array


class Model(NamedTuple):
    """The fields of a `Router` as numbers; bias and expert_scale [N] float32, empty if there is none."""

    k: int
    scoring: int
    bias: Array
    groups: int
    top_groups: int
    top2: bool
    renormalize: bool
    scale: float
    expert_scale: Array
    zeros: int


class Draw(NamedTuple):
    """Experts at random, in place of the router's own order."""

    on: bool
    seed: int
    layer: int


class Where(NamedTuple):
    """Where experts lie, and how far the pool may be widened there: see `Placement` and `Room`; no map if empty."""

    physical: Array
    home: Array
    ranks: int
    slots: int
    kind: int
    budget: int


class Counters(NamedTuple):
    """A layer's row of a `Tally`, empty if nothing is counted."""

    row: Array
    counting: int
    experts: int
    ranks: int
    placed: bool


class Seen(NamedTuple):
    """What is known of each token.

    Args:
        whole: [B] bool; a broken row is a token, and else a pad row.
        scores, choice: [B, N] float32, what weighs and what chooses.
        member: [B, N] bool, the experts of the token's groups.
        own, best: [B, k], its own top k, and that of the order that it chooses by.
        mass_own: [B] float32, the scores of its own top k.
        guaranteed: [B, k] bool, which of its best are its floor.
    """

    whole: Array
    scores: Array
    choice: Array
    member: Array
    own: Array
    best: Array
    mass_own: Array
    guaranteed: Array


@register_jitable  # type: ignore[untyped-decorator]
def route(
    rows: Rows, model: Model, numbers: Numbers, draw: Draw, where: Where, counters: Counters, width: int
) -> tuple[Array, Array, Array]:
    """Weights [B, width] float32, ids [B, width] int32, pool [N] bool: see `oea_server.routing.route`."""
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
            guarantee(i, asked_by(i, rows, model.k), model, numbers, seen, pool)
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
        widen(pool, wanted, home // where.slots, where.ranks, where.budget if where.kind == BUDGET else 0)

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
        if not seen.whole[i]:
            ids[i] = np.argmax(open_to)  # any expert that is awake will do for a row that has no best
            weights[i, : numbers.limit] = np.nan if rows.real[i] else 0
            continue
        asked = asked_by(i, rows, model.k)
        near = within_reach(i, max(numbers.reach, asked), model, seen, open_to, awake)
        if len(least):
            near = near[seen_from(i, rows.drafts[i], least, seen)[near] | (near >= loaded)]
        chosen = np.empty(min(max(numbers.limit, asked), width), dtype=np.int64)
        taken[i] = top(seen.choice[i], near, chosen)
        ids[i] = chosen[0]  # an unused slot wakes nobody
        ids[i, : taken[i]] = chosen[: taken[i]]
        kept += weigh(chosen[: taken[i]], seen.scores[i], seen.mass_own[i], model, numbers, weights[i])

    if len(counters.row):
        count(counters, seen, pool, loaded, home, len(where.physical) > 0)
        sums = counters.row[HISTOGRAMS * (counters.experts + 1) :]
        sums[TOKENS] += rows.real.sum() * counters.counting
        sums[ASSIGNMENTS] += taken.sum() * counters.counting
        sums[PIGGYBACKED] += (taken.sum() - seen.guaranteed.sum()) * counters.counting
        sums[MASS_KEPT] += kept * counters.counting
    return weights, ids, pool


@register_jitable  # type: ignore[untyped-decorator]
def read(i: int, rows: Rows, model: Model, draw: Draw, seen: Seen) -> bool:
    """Score a token's experts and rank them. False in a broken row, of which the rest means nothing."""
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
    if draw.on:
        shuffle(logits, i, draw, choice)
        top(choice, candidates, seen.best[i])
    for expert in seen.own[i]:
        seen.mass_own[i] += scores[expert]
    return True


@register_jitable  # type: ignore[untyped-decorator]
def asked_by(i: int, rows: Rows, k: int) -> int:
    """The floor that a row asks for itself, 0 where it does not."""
    return min(rows.k0[i], k) if len(rows.k0) else 0


@register_jitable  # type: ignore[untyped-decorator]
def guarantee(i: int, asked: int, model: Model, numbers: Numbers, seen: Seen, pool: Array) -> None:
    """A token's floor: the top that its row asks for, or the policy's."""
    scores, best = seen.scores[i], seen.best[i]
    share = np.float32(numbers.share)
    whole = 1.0
    if numbers.p < 1.0 and model.scoring != SOFTMAX:
        whole = np.float64(scores.sum()) + RENORMALIZE_EPSILON
    mass = 0.0
    for rank in range(asked if asked > 0 else numbers.floor):
        held = scores[best[rank]]
        if asked <= 0 and numbers.p < 1.0 and mass / whole >= numbers.p:
            break
        mass += np.float64(held)
        if asked > 0 or rank == 0 or share == 0 or held > share * seen.mass_own[i]:
            seen.guaranteed[i, rank] = True
            pool[best[rank]] = True


@register_jitable  # type: ignore[untyped-decorator]
def within_reach(i: int, reach: int, model: Model, seen: Seen, pool: Array, awake: Array) -> Array:
    """The experts of the pool that a token may take, in rising order: of its own groups, and of its first ranks."""
    n = len(pool)
    if reach >= n:
        return awake if model.groups == 1 else awake[seen.member[i][awake]]
    candidates = np.arange(n) if model.groups == 1 else np.flatnonzero(seen.member[i])
    near = np.empty(reach, dtype=np.int64)
    near = near[: top(seen.choice[i], candidates, near)]
    return np.sort(near[pool[near]])


@register_jitable  # type: ignore[untyped-decorator]
def weigh(chosen: Array, scores: Array, mass_own: Any, model: Model, numbers: Numbers, weights: Array) -> int:
    """The model's own scores over the chosen set. Returns the share of the token's own mass that they hold, in units of
    1 / MASS_UNIT."""
    mass = np.float32(0)
    for slot in range(len(chosen)):
        weights[slot] = scores[chosen[slot]]
        mass += scores[chosen[slot]]
    if model.renormalize:
        mix = np.float32(numbers.mix)
        weights /= (mass if mix == 1 else mix * mass + (np.float32(1) - mix) * mass_own) + EPSILON
    if len(model.expert_scale):
        for slot in range(len(chosen)):
            weights[slot] *= model.expert_scale[chosen[slot]]
    if model.scale != 1.0:
        weights *= np.float32(model.scale)
    return int(min(mass / (mass_own + EPSILON), np.float32(len(chosen))) * np.float32(MASS_UNIT) + np.float32(0.5))


@register_jitable  # type: ignore[untyped-decorator]
def score(logits: Array, scoring: int, scores: Array) -> Any:
    """One token's scores, [N]. Returns what they sum to before softmax divides: not finite in a broken row."""
    highest = logits.max() if scoring == SOFTMAX else np.float32(0)
    total = np.float32(0)
    for expert in range(len(logits)):
        x = logits[expert]
        if scoring == SOFTMAX:
            scores[expert] = np.exp(x - highest)
        elif scoring == SIGMOID:
            scores[expert] = np.float32(1) / (np.float32(1) + np.exp(-x))
        else:
            scores[expert] = np.sqrt(max(x, np.float32(0)) + np.log1p(np.exp(-np.abs(x))))
        total += scores[expert]
    if scoring == SOFTMAX:
        scores /= total
    return total


@register_jitable  # type: ignore[untyped-decorator]
def members(scores: Array, choice: Array, model: Model, member: Array) -> None:
    """Which experts are in a token's best groups, [N] bool; ties to the first group."""
    size = len(scores) // model.groups
    worth = np.empty(model.groups, dtype=np.float32)
    for group in range(model.groups):
        first, second = np.float32(-np.inf), np.float32(-np.inf)
        for expert in range(group * size, (group + 1) * size):
            value = choice[expert]
            if model.top2 and len(model.bias) == 0:
                value = scores[expert]  # logits do not add up
            if value > first:
                first, second = value, first
            elif value > second:
                second = value
        worth[group] = first + second if model.top2 and size > 1 else first
    best = np.empty(model.top_groups, dtype=np.int64)
    top(worth, np.arange(model.groups), best)
    member[:] = False
    for each in best:
        member[each * size : (each + 1) * size] = True


@register_jitable  # type: ignore[untyped-decorator]
def shuffle(logits: Array, row: int, draw: Draw, choice: Array) -> None:
    """A random order of one token's experts, [N]: see `keys.random_keys`."""
    bits = logits.view(np.int32)
    low = np.int64(0xFFFFFFFF)
    for expert in range(len(logits)):
        place = np.int64(row) * 65_599 + expert
        x = np.int64(bits[expert]) & low
        x = x + 0x9E3779B9 * (place + 1) + 0x85EBCA6B * (draw.layer + 1) + 0xC2B2AE35 * (draw.seed + 1)
        x = x & low
        x = ((x ^ (x >> 16)) * 0x85EBCA6B) & low
        x = ((x ^ (x >> 13)) * 0xC2B2AE35) & low
        choice[expert] = np.float32(x >> 16)


@register_jitable  # type: ignore[untyped-decorator]
def top(choice: Array, candidates: Array, out: Array) -> int:
    """The best of the candidates, given in rising order, into `out`: best first, ties to the lowest id.
    Returns how many there are."""
    found = 0
    for expert in candidates:
        if found == len(out) and choice[expert] <= choice[out[found - 1]]:
            continue
        if found < len(out):
            found += 1
        place = found - 1
        while place > 0 and choice[out[place - 1]] < choice[expert]:
            out[place] = out[place - 1]
            place -= 1
        out[place] = expert
    return found


@register_jitable  # type: ignore[untyped-decorator]
def votes(rows: Rows, model: Model, seen: Seen, could: int) -> Array:
    """How much each expert is wanted, [N]: each token's (weight / their sum)^4 for those of its best that it could
    take, in units of 1 / VOTE."""
    wanted = np.zeros(rows.logits.shape[1], dtype=np.int64)
    values = np.empty(model.k, dtype=np.float32)
    for i in np.flatnonzero(seen.whole):
        logits, best = rows.logits[i], seen.best[i]
        highest = logits.max() if model.scoring == SOFTMAX else np.float32(0)
        mass = np.float32(0)
        for rank in range(model.k):
            expert = best[rank]
            values[rank] = np.exp(logits[expert] - highest) if model.scoring == SOFTMAX else seen.scores[i, expert]
            mass += values[rank]
        for rank in range(could):
            part = values[rank] / (mass + EPSILON)
            square = part * part
            wanted[best[rank]] += np.int64(square * square * VOTE_UNIT)
    return wanted


@register_jitable  # type: ignore[untyped-decorator]
def homes(pool: Array, physical: Array, ranks: int, slots: int) -> Array:
    """The physical expert that each expert is read from, [N]: of several the one on the least loaded rank, the pool's
    experts before the others, each by id."""
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


@register_jitable  # type: ignore[untyped-decorator]
def widen(pool: Array, wanted: Array, rank_of: Array, ranks: int, budget: int) -> None:
    """Let each rank take its most wanted experts, up to the busiest one's count or to a budget, ties to the lowest
    id. An expert that no token wants is never taken."""
    load = np.zeros(ranks, dtype=np.int64)
    for expert in np.flatnonzero(pool):
        load[rank_of[expert]] += 1
    target = budget if budget else load.max()
    for expert in np.argsort(-wanted, kind="mergesort"):
        if wanted[expert] > 0 and not pool[expert] and load[rank_of[expert]] < target:
            pool[expert] = True
            load[rank_of[expert]] += 1


@register_jitable  # type: ignore[untyped-decorator]
def depths(drafts: Array, seen: Seen, n: int) -> Array:
    """How deep the guess is that guarantees each expert, the least of them, [N]; empty if all rows are tokens.

    A guess in a tree counts for nobody else: it is an ancestor of some, of which is not known here.
    """
    least = np.full(n if len(drafts) else 0, DEEPEST, dtype=np.int64)
    for i in np.flatnonzero(seen.whole[: len(drafts)]):
        for rank in range(seen.best.shape[1]):
            if seen.guaranteed[i, rank] and drafts[i] >= 0:
                least[seen.best[i, rank]] = min(least[seen.best[i, rank]], drafts[i])
    return least


@register_jitable  # type: ignore[untyped-decorator]
def seen_from(i: int, depth: int, least: Array, seen: Seen) -> Array:
    """The experts that a row may take, [N] bool: its own, and those that tokens and guesses no deeper guarantee.

    What deeper ones wake must not reach it: they are guesses at what comes after it, and it decides over them. Nor by a
    detour over its neighbours: what they take in this layer is in their floors of the next.
    """
    open_to = least <= max(depth, 0)
    for rank in range(seen.best.shape[1]):
        if seen.guaranteed[i, rank]:
            open_to[seen.best[i, rank]] = True
    return open_to


@register_jitable  # type: ignore[untyped-decorator]
def count(counters: Counters, seen: Seen, pool: Array, loaded: int, home: Array, mapped: bool) -> None:
    """Count the experts that a step loads, and those that the model's own top k would have."""
    vanilla = np.zeros(len(pool), dtype=np.bool_)
    for i in np.flatnonzero(seen.whole):
        vanilla[seen.own[i]] = True
    vanilla[loaded:] = False
    bins, counting = counters.experts + 1, counters.counting
    share = counters.experts // counters.ranks
    if not counters.placed:
        counters.row[UNIQUE * bins + pool.sum()] += counting
        if counters.ranks > 1:
            counters.row[BUSIEST * bins + busiest(pool, home // share, counters.ranks)] += counting
    counters.row[VANILLA * bins + vanilla.sum()] += counting
    if counters.ranks > 1 and (mapped or not counters.placed):
        counters.row[VANILLA_BUSIEST * bins + busiest(vanilla, home // share, counters.ranks)] += counting


@register_jitable  # type: ignore[untyped-decorator]
def busiest(experts: Array, rank_of: Array, ranks: int) -> int:
    """The most experts of a set on one rank."""
    load = np.zeros(ranks, dtype=np.int64)
    for expert in np.flatnonzero(experts):
        load[rank_of[expert]] += 1
    most: int = load.max()
    return most
