"""What a search found at one batch size: rules with their intervals, and those of them that no
other beats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from oea_server.lab.quality.search.candidates import Candidate
from oea_server.lab.quality.search.race import READS_ALIKE, Tried
from oea_server.lab.records import stats
from oea_server.lab.records.stats import Interval


class Point(NamedTuple):
    """One rule on all of the text.

    Args:
        increase: in cross-entropy over vanilla, nats per token, with its 95 % interval.
        reads: experts per layer and step: unique ones, or the busiest rank's.
        cost: what is to be small: the same, or microseconds of a layer.
    """

    rule: Candidate
    increase: Interval
    reads: float
    cost: float
    unique: float
    kept: float


def points(tried: Sequence[Tried], cost: Callable[[float], float], seed: int) -> list[Point]:
    """Least cost first.

    Args:
        cost: experts read -> cost.
    """
    found = [
        Point(
            *(each.rule, stats.mean(each.increase.tolist(), seed)),
            *(each.reads, cost(each.reads), each.unique, each.kept),
        )
        for each in tried
    ]
    return sorted(found, key=lambda each: (each.cost, each.increase.value))


def front(found: Sequence[Point]) -> list[Point]:
    """The rules than which no other costs less and loses less, by the means."""
    best: list[Point] = []
    for each in sorted(found, key=lambda point: (point.cost, point.increase.value)):
        if not best or each.increase.value < best[-1].increase.value:
            best.append(each)
    return best


def cheapest(found: Sequence[Point]) -> Point:
    """What costs least, and of those that cost as much what loses least: a mixture alone does not
    change the reads."""
    least = min(each.cost for each in found)
    alike = [each for each in found if each.cost <= least * (1 + READS_ALIKE)]
    return min(alike, key=lambda each: each.increase.value)
