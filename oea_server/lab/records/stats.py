"""Means over sequences with bootstrap intervals: whole sequences are drawn again, for tokens of one
go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95


class Mean(NamedTuple):
    """A mean and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def mean(values: Sequence[float], seed: int = 0) -> Mean:
    """The mean over sequences; the interval by the percentile bootstrap."""
    array = np.asarray(values)
    drawn = np.random.default_rng(seed).integers(0, len(array), (DRAWS, len(array)))
    return interval(float(array.mean()), array[drawn].mean(axis=1))


def interval(value: float, draws: NDArray[np.float64]) -> Mean:
    """A value and the middle 95 % of its draws."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Mean(value, float(low), float(high))


def paired(values: Sequence[float], base: Sequence[float], seed: int = 0) -> Mean:
    """The mean difference of the same sequences under two arms."""
    return mean(np.asarray(values) - np.asarray(base), seed)  # type: ignore[arg-type]
