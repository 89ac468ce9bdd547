"""A straight line through points, and how straight they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_SPREAD = 1.0
"""Experts between the least and the most T below which no slope is worth printing."""


@dataclass(frozen=True, slots=True)
class Line:
    """y = intercept + slope x, by least squares."""

    slope: float
    intercept: float
    r2: float
    """Coefficient of determination; 1 where all y are equal and met."""

    def at(self, x: float) -> float:
        """The line's y."""
        return self.intercept + self.slope * x


def fit(xs: Sequence[float], ys: Sequence[float]) -> Line | None:
    """The line through (x, y); None for fewer than three points, or where x hardly varies."""
    count = len(xs)
    if count < 3 or max(xs) - min(xs) < MIN_SPREAD:
        return None
    mean_x, mean_y = sum(xs) / count, sum(ys) / count
    var_x = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / var_x
    intercept = mean_y - slope * mean_x
    total = sum((y - mean_y) ** 2 for y in ys)
    missed = sum((y - intercept - slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
    return Line(slope, intercept, 1 - missed / total if total else 1.0)
