"""What an arm loses over what plain OEA loses where it reads as much."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from oea_server.lab.records.stats import Floats, Interval, bootstrap, mean

NOTHING = 1e-6
"""Nats. A drawn loss below it counts as this much: it divides."""


class Point(NamedTuple):
    """One arm at one batch size.

    Args:
        reads: experts, mean over steps: unique ones, or those of the busiest rank.
        increase: in cross-entropy over vanilla, by sequence, nats per token [S].
    """

    reads: float
    increase: Floats


def over(mine: Point, plain: Sequence[Point], seed: int = 0) -> Interval | None:
    """The ratio of losses at equal reads, plain OEA's between its two nearest k0, in logarithms;
    the same sequences are drawn again for all three. None outside of what was measured, and where
    plain OEA's loss could be none."""
    for a, b in pairwise(sorted(plain, key=lambda each: each.reads)):
        if a.reads <= mine.reads <= b.reads and a.reads < b.reads:
            if any(mean(each.increase, seed).low <= NOTHING for each in (a, b)):
                return None
            ratio = partial(_ratio, part=(mine.reads - a.reads) / (b.reads - a.reads))
            return bootstrap(ratio, mine.increase, a.increase, b.increase, seed=seed)
    return None


def _ratio(mine: Floats, a: Floats, b: Floats, axis: int, part: float) -> Floats:
    low, high = (np.log(np.maximum(each.mean(axis), NOTHING)) for each in (a, b))
    found: Floats = mine.mean(axis) / np.exp(low + (high - low) * part)
    return found
