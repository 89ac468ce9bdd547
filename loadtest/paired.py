"""Two configurations that took turns: how much they differ, and whether it is more than chance."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Sequence
from typing import NamedTuple

RESAMPLES = 10_000
MOST_SIGNS = 1 << 14
"""Sign patterns that are tried one by one; beyond, as many at random."""
LEVEL = 0.05


class Difference(NamedTuple):
    """B against A, over pairs of blocks that followed each other.

    Args:
        a, b: means over blocks.
        change: the mean of B - A; low, high: 95 % of the resamples of the pairs lie between
            (bootstrap).
        ratio: the sum of B over the sum of A, ratio_low, ratio_high: likewise; None where A has
            zeros only.
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
    pairs = list(zip(a, b, strict=True))
    dice = random.Random(seed)
    changes, ratios = [], []
    for _ in range(RESAMPLES):
        drawn = dice.choices(pairs, k=len(pairs))
        before, after = sum(each[0] for each in drawn), sum(each[1] for each in drawn)
        changes.append((after - before) / len(drawn))
        if before:
            ratios.append(after / before)
    low, high = interval(changes)
    ratio_low, ratio_high = interval(ratios) if ratios else (None, None)
    return Difference(
        statistics.fmean(a),
        statistics.fmean(b),
        statistics.fmean(after - before for before, after in pairs),
        low,
        high,
        sum(b) / sum(a) if sum(a) else None,
        ratio_low,
        ratio_high,
        sign_flips([after - before for before, after in pairs], seed),
    )


def interval(values: list[float]) -> tuple[float, float]:
    """Where 95 % of them lie."""
    ordered = sorted(values)
    return (
        ordered[len(ordered) * 25 // 1000],
        ordered[min(len(ordered) * 975 // 1000, len(ordered) - 1)],
    )


def sign_flips(changes: Sequence[float], seed: int = 0) -> float:
    """P of a mean at least so far from 0 if A and B were the same: exact, where the bootstrap of
    ten pairs is not."""
    observed = abs(sum(changes)) * (1 - 1e-9)
    patterns = 1 << len(changes)
    if patterns <= MOST_SIGNS:
        signs = itertools.product((1, -1), repeat=len(changes))
        return (
            sum(
                abs(sum(s * c for s, c in zip(each, changes, strict=True))) >= observed
                for each in signs
            )
            / patterns
        )
    dice = random.Random(seed)
    hits = sum(
        abs(sum(c * dice.choice((1, -1)) for c in changes)) >= observed for _ in range(MOST_SIGNS)
    )
    return (hits + 1) / (MOST_SIGNS + 1)


def holm(ps: Sequence[float]) -> list[bool]:
    """Which of several p are significant when all are looked at: with 5 % chance that any is so by
    accident."""
    significant = [False] * len(ps)
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        if ps[index] > LEVEL / (len(ps) - rank):
            break
        significant[index] = True
    return significant
