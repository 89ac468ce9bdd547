"""The law in simulation: noise, delay, a slope told ten times wrong, steps and ramps of load, a
thousand seeds."""

from __future__ import annotations

from itertools import pairwise

import pytest

from oea_server.controller.law import MARGIN
from tests.unit.controller_plant import FALL, PERIODS, RAMP, RISE, RUNGS, Plant

SETTLED = ((RISE + RAMP + 20, FALL), (FALL + RAMP + 25, PERIODS))
"""Periods in which the load has stood for a while."""


@pytest.fixture(scope="module", params=range(10))
def runs(request: pytest.FixtureRequest) -> list[tuple[Plant, list[int]]]:
    """A hundred of the thousand."""
    plants = [Plant(seed) for seed in range(100 * request.param, 100 * request.param + 100)]
    return [(plant, plant.run()) for plant in plants]


def test_it_settles_and_moves_by_one_rung_at_most(runs: list[tuple[Plant, list[int]]]) -> None:
    for plant, rungs in runs:
        for start, end in SETTLED:
            window = rungs[start:end]
            # still on its way up
            climbs = all(later <= earlier for earlier, later in pairwise(window))
            assert max(window) - min(window) <= 1 or climbs, (plant.seed, window)


def test_it_never_leaves_the_rungs_that_quality_allows(runs: list[tuple[Plant, list[int]]]) -> None:
    for plant, rungs in runs:
        known = [rung.mass_kept >= plant.goal.mass_floor for rung in RUNGS.rungs]
        assert all(known[rung] for rung in rungs), plant.seed


def test_it_is_never_below_the_floor_for_more_than_one_period(
    runs: list[tuple[Plant, list[int]]],
) -> None:
    for plant, rungs in runs:
        below = [plant.kept(rung) < plant.goal.mass_floor for rung in rungs]
        assert not any(one and two for one, two in pairwise(below)), plant.seed


def test_the_target_is_held_where_an_allowed_rung_can_hold_it(
    runs: list[tuple[Plant, list[int]]],
) -> None:
    held = 0
    for plant, rungs in runs:
        floor = plant.goal.mass_floor
        keeps = [
            min(RUNGS.rungs[i].mass_kept, plant.kept(i)) >= floor for i in range(len(RUNGS.rungs))
        ]
        allowed = range(keeps.index(False) if False in keeps else len(keeps))
        if not any(plant.time(rung, plant.many) < 0.97 * plant.goal.tpot for rung in allowed):
            continue
        window = rungs[slice(*SETTLED[0])]
        over = sum(plant.time(rung, plant.many) > 1.005 * plant.goal.tpot for rung in window)
        assert over <= len(window) // 10, (plant.seed, window)
        held += 1
    assert held > 20


def test_quality_is_given_back_once_the_load_is_gone(runs: list[tuple[Plant, list[int]]]) -> None:
    given = 0
    for plant, rungs in runs:
        if plant.time(0, plant.few) < (1 - 2 * MARGIN) * plant.goal.tpot and plant.noise <= 0.01:
            assert rungs[-1] == 0, (plant.seed, rungs[FALL:])
            given += rungs[FALL - 1] > 0
    assert given > 5
