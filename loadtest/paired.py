"""Two configurations that took turns: how much they differ, and whether it is more than chance."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import permutation_test

from oea_server.lab.records import stats

MOST_SIGNS = 1 << 14
"""Sign patterns that are tried one by one; beyond, as many at random."""
LEVEL = 0.05


_NO_RATIO: tuple[float | None, float | None, float | None] = (None, None, None)


class Difference(NamedTuple):
    """B against A, over pairs of blocks that followed each other.

    Args:
        a, b: means over blocks.
        change: the mean of B - A; low, high: 95 % of the resamples of the pairs lie between
            (bootstrap).
        ratio: the sum of B over the sum of A, ratio_low, ratio_high: likewise; None where A has
            a zero.
        p: share of the ways to swap A and B within pairs that differ at least as much (sign-flip
            test).
    """

    a: float
    b: float
    change: float
    low: float
    high: float
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    p: float


def difference(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Difference:
    """Compare pair by pair; drift that moves both blocks of a pair cancels.

    Raises:
        ValueError: the two have not the same number of values, or none.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"{len(a)} and {len(b)} values: not pairs")
    change = stats.paired(b, a, seed)
    ratio = stats.bootstrap(_ratio, b, a, seed=seed) if min(a) > 0 else _NO_RATIO
    return Difference(
        statistics.fmean(a),
        statistics.fmean(b),
        *change,
        *ratio,
        sign_flips([after - before for before, after in zip(a, b, strict=True)], seed),
    )


def _ratio(after: stats.Floats, before: stats.Floats, axis: int) -> stats.Floats:
    found: stats.Floats = after.sum(axis) / before.sum(axis)
    return found


def sign_flips(changes: Sequence[float], seed: int = 0) -> float:
    """P of a mean at least so far from 0 if A and B were the same: exact up to 14 pairs, where the
    bootstrap of ten is not."""
    if len(changes) == 1:  # either sign is as far from 0
        return 1.0
    found = permutation_test(
        (changes,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=MOST_SIGNS,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(ps: Sequence[float]) -> list[bool]:
    """Which of several p are significant when all are looked at: with 5 % chance that any is so by
    accident."""
    significant = [False] * len(ps)
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        if ps[index] > LEVEL / (len(ps) - rank):
            break
        significant[index] = True
    return significant
