"""The time between two tokens of a request as its client sees it: SGLang's own histogram, between
two looks.

Source: `sglang:inter_token_latency_seconds`
(`TokenizerMetricsCollector.observe_inter_token_latency`), of this process."""

from __future__ import annotations

import os
from collections import Counter
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import NamedTuple

NAME = "sglang:inter_token_latency_seconds"


class Times(NamedTuple):
    """Since the start."""

    total: float
    """Seconds, of all."""
    within: tuple[tuple[float, float], ...]
    """(upper bound in seconds, how many were within it), rising; the last bound is infinite."""

    @property
    def number(self) -> float:
        """How many there were."""
        return self.within[-1][1] if self.within else 0.0


NOTHING = Times(0.0, ())


def read(folder: Path) -> Times:
    """What this process has observed by now.

    Args:
        folder: `PROMETHEUS_MULTIPROC_DIR`.
    """
    from prometheus_client.multiprocess import MultiProcessCollector

    files = [str(path) for path in folder.glob(f"histogram_{os.getpid()}.db")]
    total, within = 0.0, Counter[float]()
    for metric in MultiProcessCollector.merge(files, accumulate=True):
        for sample in metric.samples if metric.name == NAME else ():
            if sample.name == f"{NAME}_sum":
                total += sample.value
            elif sample.name == f"{NAME}_bucket":
                within[float(sample.labels["le"])] += sample.value
    return Times(total, tuple(sorted(within.items())))


def between(before: Times, after: Times, percentile: float | None) -> float | None:
    """Seconds between two tokens, of those that came after `before`; None if none did.

    Args:
        percentile: 0 to 1, read off the histogram's buckets between their bounds; the mean if None.
    """
    earlier = dict(before.within)
    fresh = [(bound, count - earlier.get(bound, 0.0)) for bound, count in after.within]
    if not fresh or fresh[-1][1] <= 0:
        return None
    if percentile is None:
        return (after.total - before.total) / fresh[-1][1]
    wanted = percentile * fresh[-1][1]
    for (low, below), (high, count) in pairwise([(0.0, 0.0), *fresh]):
        if count >= wanted:
            return low if high == inf else low + (high - low) * (wanted - below) / (count - below)
    return None
