"""What is said of numbers that scatter: their quartiles, and 95 % intervals by scipy's bootstrap.

Whole blocks or sequences are drawn again, for tokens of one go together, and those of several arms
together, for what moves all arms cancels then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95
Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate and the ends of its interval."""

    value: float
    low: float
    high: float


class Spread(NamedTuple):
    """Median and quartiles, in the unit of what was given."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of some values.

        Raises:
            ValueError: there are none.
        """
        lower, median, upper = percentiles(values, 25, 50, 75)
        return cls(median, lower, upper)


def percentiles(values: Sequence[float], *of: int) -> list[float]:
    """Percentiles by numpy's rule: between two values one lies on the line between them.

    Raises:
        ValueError: there are no values.
    """
    if not len(values):
        raise ValueError("no values: nothing was measured that a percentile could be of")
    found: list[float] = np.percentile(values, of).tolist()
    return found


def bootstrap(
    statistic: Callable[..., Any], *samples: Sequence[float] | Floats, seed: int = 0
) -> Interval:
    """A statistic with its interval: between the ends of the middle 95 % of `DRAWS` resamples.

    Args:
        statistic: takes arrays, one a sample, and the axis along which it takes them together, as
            `np.mean` does.
        samples: of the same length; the same places are drawn of all.
    """
    from scipy import stats

    arrays = [np.asarray(each, float) for each in samples]
    value = float(statistic(*arrays, axis=-1))
    if len(arrays[0]) == 1:  # nothing else can be drawn
        return Interval(value, value, value)
    found = stats.bootstrap(
        arrays,
        statistic,
        n_resamples=DRAWS,
        confidence_level=LEVEL,
        vectorized=True,
        paired=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = found.confidence_interval
    return Interval(value, float(low), float(high))


def mean(values: Sequence[float] | Floats, seed: int = 0) -> Interval:
    """The mean over sequences."""
    return bootstrap(np.mean, values, seed=seed)


def paired(
    values: Sequence[float] | Floats, base: Sequence[float] | Floats, seed: int = 0
) -> Interval:
    """The mean difference of the same sequences under two arms."""
    return mean(np.asarray(values) - np.asarray(base), seed)
