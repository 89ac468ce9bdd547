"""A step of a layer, counted into its row of a `Tally`."""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from oea_server.routing.loop_data import Array, Counters, Seen
from oea_server.routing.tally import (
    ASSIGNMENTS,
    BUSIEST,
    HISTOGRAMS,
    MASS_KEPT,
    PIGGYBACKED,
    TOKENS,
    UNIQUE,
    VANILLA,
    VANILLA_BUSIEST,
)


@register_jitable  # type: ignore[untyped-decorator]
def count(
    counters: Counters, seen: Seen, pool: Array, loaded: int, home: Array, mapped: bool
) -> None:
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
        counters.row[VANILLA_BUSIEST * bins + busiest(vanilla, home // share, counters.ranks)] += (
            counting
        )


@register_jitable  # type: ignore[untyped-decorator]
def add(counters: Counters, tokens: int, taken: int, piggybacked: int, kept: int) -> None:
    """Add to the sums of a layer."""
    sums = counters.row[HISTOGRAMS * (counters.experts + 1) :]
    sums[TOKENS] += tokens * counters.counting
    sums[ASSIGNMENTS] += taken * counters.counting
    sums[PIGGYBACKED] += piggybacked * counters.counting
    sums[MASS_KEPT] += kept * counters.counting


@register_jitable  # type: ignore[untyped-decorator]
def note(counters: Counters, seen: Seen, row: int, kept: int) -> int:
    """Write down what becomes of a row, where the tally is watched. Returns what it keeps."""
    if len(counters.rows):
        counters.rows[row, 0] = kept
        counters.rows[row, 1] = seen.guaranteed[row].sum()
    return kept


@register_jitable  # type: ignore[untyped-decorator]
def busiest(experts: Array, rank_of: Array, ranks: int) -> int:
    """The most experts of a set on one rank."""
    load = np.zeros(ranks, dtype=np.int64)
    for expert in np.flatnonzero(experts):
        load[rank_of[expert]] += 1
    most: int = load.max()
    return most
