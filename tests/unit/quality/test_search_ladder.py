"""Rungs that the controller reads, schedules that the server takes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from oea_server.controller import rungs as read_by_server
from oea_server.lab.quality import calibrate
from oea_server.lab.quality.search import ladder
from oea_server.lab.quality.search.candidates import Candidate
from oea_server.lab.quality.search.front import Point, cheapest, front
from oea_server.lab.records.stats import Interval
from oea_server.settings import Settings

BASE = Candidate(8)
SHARP, MILD, WIDE = Candidate(8, 0.13, 0.5), Candidate(5), Candidate(2, 0.0, 0.5, "budget", 24)


def point(rule: Candidate, loses: float, reads: float, kept: float = 0.9) -> Point:
    return Point(
        rule, Interval(loses, loses, loses + 0.001 if loses else 0.0), reads, reads, reads, kept
    )


def fronts(lucky: float = 0.02) -> dict[int, list[Point]]:
    """
    Args:
        lucky: what the sharp rule loses at the smaller batch.
    """
    return {
        4: [point(BASE, 0, 28, 1.0), point(MILD, 0.009, 19), point(SHARP, lucky, 11, 0.7)],
        16: [point(BASE, 0, 76, 1.0), point(MILD, 0.003, 55), point(SHARP, 0.009, 27, 0.8)],
    }


def test_each_rung_keeps_within_its_budget_at_every_batch_size() -> None:
    found = ladder.ladder(fronts(), BASE, 0.04, lambda batch, rule: 0.0)
    assert [rung.budget for rung in found] == [0.005, 0.01, 0.04]  # at 0.02 nothing more fits
    rules = [[rung.chosen[batch].rule for batch in (4, 16)] for rung in found]
    assert rules == [[BASE, MILD], [MILD, SHARP], [SHARP, SHARP]]


def test_a_smaller_batch_costs_at_least_what_the_larger_ones_rule_would() -> None:
    """Chance let the sharp rule lose nothing there."""
    found = ladder.ladder(
        fronts(lucky=0.001),
        BASE,
        0.008,
        lambda batch, rule: {BASE: 28.0, MILD: 19.0}.get(rule, 11.0),
    )
    assert [rung.chosen[4].rule for rung in found] == [BASE]
    assert found[0].chosen[16].rule == MILD


def test_a_pool_is_one_for_all_batch_sizes() -> None:
    both = fronts()
    both[16].append(point(WIDE, 0.001, 24))
    both[4].append(point(WIDE, 0.0, 27.9))
    found = ladder.ladder(both, BASE, 0.04, lambda batch, rule: 0.0)
    assert found[0].fixed == ("budget", 24)
    for rung in found:
        assert {each.rule.fixed for each in rung.chosen.values() if each.rule != BASE} == {
            rung.fixed
        }
    assert all(
        after.chosen[b].cost <= before.chosen[b].cost
        for before, after in pairwise(found)
        for b in both
    )


def test_a_budget_of_less_than_any_rule_costs_has_no_rungs() -> None:
    assert ladder.ladder(fronts(), BASE, 0.0001, lambda batch, rule: 0.0) == []


def test_the_controller_and_the_server_take_them(tmp_path: Path) -> None:
    both = fronts()
    vanilla = {batch: points[0] for batch, points in both.items()}
    found = ladder.ladder(both, BASE, 0.04, lambda batch, rule: 0.0)
    path = tmp_path / "rungs.json"
    path.write_text(json.dumps(ladder.content(found, vanilla, "m", "s", 8)))
    read = read_by_server.read(str(path), Settings())
    assert [rung.mass_kept for rung in read.rungs] == [1.0, 0.9, 0.8, 0.7]
    assert [rung.nats for rung in read.rungs] == [0.0, 0.004, 0.01, 0.021]
    assert read.rungs[2].experts == pytest.approx({1: 1.0, 4: 19 / 28, 16: 27 / 76}, abs=1e-4)
    about = dict.fromkeys(("command", "model", "text", "seed", "machine", "versions"), "?")
    schedule = tmp_path / "schedule.json"
    calibrate.save(schedule, about, ladder.choices(found[1], vanilla), 0.01, 8)
    policy = Settings(schedule=str(schedule)).policy_for(8)
    numbers = [policy.numbers(batch, 0, k=8, num_experts=128) for batch in (2, 4, 16)]
    assert [(each.floor, each.share, each.mix) for each in numbers] == [
        (8, 0.0, 1.0),
        (5, 0.0, 1.0),
        (8, 0.13, 0.5),
    ]


def test_of_rules_that_read_alike_the_one_that_loses_least() -> None:
    even, better = (
        point(Candidate(5, 0.08), 0.007, 40.43),
        point(Candidate(5, 0.08, 0.3), 0.004, 40.51),
    )
    assert cheapest([even, better, point(BASE, 0, 76)]) == better


def test_the_front_has_no_rule_that_another_beats() -> None:
    a, b, beaten = point(MILD, 0.003, 55), point(SHARP, 0.009, 27), point(Candidate(4), 0.01, 45)
    assert front([a, beaten, b]) == [b, a]
