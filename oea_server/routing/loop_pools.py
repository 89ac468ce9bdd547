"""What a step reads beside the floors, where it reads it, and which of it a row may take."""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from oea_server.routing.loop_data import EPSILON, SOFTMAX, Array, Model, Rows, Seen
from oea_server.routing.widen import VOTE

VOTE_UNIT = np.float32(VOTE)
DEEPEST = np.iinfo(np.int64).max


@register_jitable  # type: ignore[untyped-decorator]
def votes(rows: Rows, model: Model, seen: Seen, could: int) -> Array:
    """How much each expert is wanted, [N], in units of 1 / VOTE. The sum over tokens of (weight /
    their sum)^4, for those of a token's best that it could take."""
    wanted = np.zeros(rows.logits.shape[1], dtype=np.int64)
    values = np.empty(model.k, dtype=np.float32)
    for i in np.flatnonzero(seen.whole):
        logits, best = rows.logits[i], seen.best[i]
        highest = logits.max() if model.scoring == SOFTMAX else np.float32(0)
        mass = np.float32(0)
        for rank in range(model.k):
            expert = best[rank]
            values[rank] = (
                np.exp(logits[expert] - highest)
                if model.scoring == SOFTMAX
                else seen.scores[i, expert]
            )
            mass += values[rank]
        for rank in range(could):
            part = values[rank] / (mass + EPSILON)
            square = part * part
            wanted[best[rank]] += np.int64(square * square * VOTE_UNIT)
    return wanted


@register_jitable  # type: ignore[untyped-decorator]
def homes(pool: Array, physical: Array, ranks: int, slots: int) -> Array:
    """The physical expert that each expert is read from, [N]. Of several copies the one on the
    least loaded rank, the pool's experts before the others, each by id."""
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
                    if each >= 0 and (load[each // slots], each) < (
                        load[home[expert] // slots],
                        home[expert],
                    ):
                        home[expert] = each
                load[home[expert] // slots] += 1
    return home


@register_jitable  # type: ignore[untyped-decorator]
def widen(pool: Array, wanted: Array, rank_of: Array, ranks: int, budget: int) -> None:
    """Let each rank take its most wanted experts, up to the busiest one's count or to a budget,
    ties to the lowest id. An expert that no token wants is never taken."""
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
    """How deep the guess is that guarantees each expert, the least of them, [N]; empty if all rows
    are tokens. A guess in a tree has no depth: it counts for those that follow it alone."""
    least = np.full(n if len(drafts) else 0, DEEPEST, dtype=np.int64)
    for i in np.flatnonzero(seen.whole[: len(drafts)]):
        for rank in range(seen.best.shape[1]):
            if seen.guaranteed[i, rank] and drafts[i] >= 0:
                least[seen.best[i, rank]] = min(least[seen.best[i, rank]], drafts[i])
    return least


@register_jitable  # type: ignore[untyped-decorator]
def seen_from(i: int, draft: int, least: Array, seen: Seen) -> Array:
    """The experts that a row may take, [N] bool. Included are its own, and those that tokens, its
    ancestors in a tree and guesses no deeper in a chain guarantee.

    What deeper ones wake must not reach it: they are guesses at what comes after it, and it decides
    over them. Nor by a detour over its neighbours: what they take in this layer is in their floors
    of the next."""
    open_to = least <= max(draft, 0)
    add_floor(i, seen, open_to)
    ancestors, other = ~min(draft, -1), i - 1
    while ancestors and other >= 0:
        if ancestors & 1 and seen.whole[other]:
            add_floor(other, seen, open_to)
        ancestors, other = ancestors >> 1, other - 1
    return open_to


@register_jitable  # type: ignore[untyped-decorator]
def add_floor(i: int, seen: Seen, open_to: Array) -> None:
    for rank in range(seen.best.shape[1]):
        if seen.guaranteed[i, rank]:
            open_to[seen.best[i, rank]] = True
