"""Times in buckets of 1 %: what workers can send to their master, and finer than Locust's own,
which rounds a token's 18.4 ms to 18."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

STEP = math.log(1.01)
SMALLEST = 1e-6
"""Seconds; what is shorter counts as this."""


@dataclass(slots=True)
class Histogram:
    """Counts by bucket; the sum is exact."""

    counts: Counter[int] = field(default_factory=Counter)
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[math.floor(math.log(max(seconds, SMALLEST)) / STEP)] += 1
        self.total += seconds

    def extend(self, values: Iterable[float]) -> None:
        for value in values:
            self.add(value)

    def merge(self, other: Histogram) -> None:
        self.counts.update(other.counts)
        self.total += other.total

    @property
    def number(self) -> int:
        return self.counts.total()

    @property
    def mean(self) -> float | None:
        return self.total / self.number if self.counts else None

    def quantile(self, share: float) -> float | None:
        """Within 0.5 % of the value below which `share` of all values are; None without values."""
        left = max(1, math.ceil(share * self.number))
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                return math.exp((bucket + 0.5) * STEP)
        return None

    def packed(self) -> dict[str, Any]:
        """For the way to the master."""
        return {"counts": dict(self.counts), "total": self.total}

    @classmethod
    def unpacked(cls, data: dict[str, Any]) -> Self:
        return cls(
            Counter({int(bucket): count for bucket, count in data["counts"].items()}), data["total"]
        )
