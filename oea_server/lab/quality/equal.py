"""What an arm loses over what plain OEA loses where it reads as much."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oea_server.lab.records.stats import DRAWS, Mean, interval

NOTHING = 1e-6
"""Nats. A drawn loss below it counts as this much: it divides."""


class Point(NamedTuple):
    """One arm at one batch size.

    Args:
        reads: experts, mean over steps: unique ones, or those of the busiest rank.
        increase: in cross-entropy over vanilla, by sequence, nats per token [S].
    """

    reads: float
    increase: NDArray[np.float64]


def over(mine: Point, plain: Sequence[Point], seed: int = 0) -> Mean | None:
    """The ratio of losses at equal reads, plain OEA's between its two nearest k0, in logarithms;
    the same sequences are drawn again for all three. None outside of what was measured, and where
    plain OEA's loss could be none."""
    drawn = np.random.default_rng(seed).integers(0, len(mine.increase), (DRAWS, len(mine.increase)))

    def losses(point: Point) -> NDArray[np.float64]:
        return np.concatenate([[point.increase.mean()], point.increase[drawn].mean(axis=1)])

    for a, b in pairwise(sorted(plain, key=lambda each: each.reads)):
        if a.reads <= mine.reads <= b.reads and a.reads < b.reads:
            low, high = losses(a), losses(b)
            if any(interval(each[0], each[1:]).low <= NOTHING for each in (low, high)):
                return None
            low, high = (np.log(np.maximum(each, NOTHING)) for each in (low, high))
            part = (mine.reads - a.reads) / (b.reads - a.reads)
            ratios = losses(mine) / np.exp(low + (high - low) * part)
            return interval(float(ratios[0]), ratios[1:])
    return None
