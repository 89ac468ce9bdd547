"""Quartiles and intervals of records: against numbers known otherwise, and the records that keep
what theirs were made of."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest

from loadtest import ab
from oea_server.lab.records import files, stats

RESULTS = Path(__file__).parents[2] / "benchmarks/results/2-core-x86_64"


def test_quartiles_lie_on_the_line_between_two_values() -> None:
    values = [5.0, 1.0, 2.0, 4.0]
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    assert stats.Spread.of(values) == (median, lower, upper)
    assert stats.Spread.of([3.0]) == (3.0, 3.0, 3.0)
    assert stats.percentiles(values, 0, 50, 100) == [1.0, 3.0, 5.0]
    with pytest.raises(ValueError, match="no values"):
        stats.Spread.of([])


def test_the_interval_is_the_middle_of_the_draws_of_its_seed() -> None:
    values = np.random.default_rng(4).normal(1.0, 2.0, 50)
    drawn = np.random.default_rng(7).integers(0, 50, (stats.DRAWS, 50))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    assert stats.mean(values, 7) == pytest.approx((values.mean(), low, high))


def test_samples_are_drawn_together() -> None:
    """A ratio that is the same in every pair has no interval, however far the pairs are apart."""
    base = np.array([1.0, 10.0, 100.0, 1000.0])

    def ratio(a: stats.Floats, b: stats.Floats, axis: int) -> stats.Floats:
        found: stats.Floats = a.sum(axis) / b.sum(axis)
        return found

    assert stats.bootstrap(ratio, 2 * base, base) == pytest.approx((2.0, 2.0, 2.0))


def test_one_value_is_its_own_interval() -> None:
    assert stats.mean([1.5]) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize("name", ["ab-qwen3-30b-4-layers", "ab-null-qwen3-30b-4-layers"])
def test_what_an_ab_says_follows_from_its_blocks(name: str) -> None:
    record = files.read(RESULTS / f"{name}.json")
    found = ab.compare(record["blocks"], record["plan"]["seed"])
    assert files.rounded(found["rows"]) == record["rows"]


def test_what_watching_and_being_there_cost_follows_from_their_rounds() -> None:
    watched, plain = (files.read(RESULTS / f"{name}.json") for name in ("observing", "overhead"))
    for found, of, over in (
        (watched["watched_over_alone"], watched["tpot_ms"], ("watched", "alone")),
        (plain["vanilla_over_without"], plain["tokens_per_second"], ("vanilla", "without")),
    ):
        ratios = [a / b for a, b in zip(*(of[name] for name in over), strict=True)]
        said = stats.bootstrap(np.median, ratios) if "value" in found else stats.Spread.of(ratios)
        assert files.rounded(said._asdict()) == found
