"""Losses are compared where as much is read."""

from __future__ import annotations

import numpy as np
import pytest

from oea_server.lab.quality.equal import Point, over

FINE = Point(40, np.full(8, 0.02))
COARSE = Point(20, np.full(8, 0.08))


def test_between_two_k0_losses_are_interpolated_in_logarithms() -> None:
    found = over(Point(30, np.full(8, 0.02)), [FINE, COARSE])
    assert found == pytest.approx((0.5, 0.5, 0.5))
    assert over(Point(40, np.full(8, 0.01)), [COARSE, FINE]) == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize("reads", [19.9, 40.1])
def test_outside_of_what_was_measured_there_is_no_answer(reads: float) -> None:
    assert over(Point(reads, FINE.increase), [FINE, COARSE]) is None


def test_where_plain_oea_loses_nothing_there_is_no_answer() -> None:
    assert over(Point(30, FINE.increase), [Point(40, np.full(8, -0.001)), COARSE]) is None


def test_sequences_are_drawn_together_and_a_noisy_difference_has_a_wide_interval() -> None:
    noise = np.random.default_rng(1).normal(0.02, 0.01, 64)
    together = over(
        Point(40, noise / 2), [COARSE._replace(increase=np.full(64, 0.08)), Point(40, noise)]
    )
    assert together == pytest.approx((0.5, 0.5, 0.5))
    apart = over(
        Point(40, noise[::-1] / 2), [COARSE._replace(increase=np.full(64, 0.08)), Point(40, noise)]
    )
    assert apart is not None
    assert apart.low < 0.47
    assert apart.high > 0.53
