"""The search finds what the whole grid finds, in a quarter of the evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from oea_server.lab.quality.routed import routers
from oea_server.lab.quality.search import race
from oea_server.lab.quality.search.candidates import Candidate, space
from oea_server.lab.quality.search.front import Point, cheapest, points
from oea_server.lab.quality.search.ledger import Measured
from oea_server.lab.quality.search.race import Course, Tried
from oea_server.routing import Router, eager
from tests.unit.quality.simulated_rules import measured

PIECES = 16
BUDGET = 0.025
SEEDS = range(6)


def least(found: Sequence[Point], budget: float) -> Point:
    """What a schedule would take: the least reads whose loss is within a budget by its whole
    interval."""
    return cheapest([each for each in found if each.increase.high <= budget])


def whole_grid(measure: Callable[[Candidate, int], Measured], pieces: int) -> list[Point]:
    found = space(8, 128)
    course = Course(found.base, measure)
    course.run(found.all, pieces)
    within = [each for rule in found.all if (each := course.tried(rule)).mean <= BUDGET]
    return points(within, float, 0)


@pytest.fixture(scope="module")
def searched() -> list[tuple[race.Race, list[Point], list[Point], list[Point]]]:
    """Of each simulated model the search, what it measured in full, the whole grid, and all rules
    on a quarter."""
    return [
        (
            done := race.race(space(8, 128), measure, PIECES, lambda _: BUDGET),
            points(done.left, float, 0),
            whole_grid(measure, PIECES),
            whole_grid(measure, PIECES // 4),
        )
        for measure in (cache(measured(seed)) for seed in SEEDS)
    ]


def test_it_takes_a_quarter_of_the_evaluations_at_most(searched: Any) -> None:
    for done, *_ in searched:
        assert done.evaluations == sum(each.pieces for each in done.tried)
        assert done.evaluations <= done.whole / 4


@pytest.mark.parametrize("part", [1 / 4, 1 / 2, 1.0])
def test_it_finds_the_rule_that_the_whole_grid_finds(part: float, searched: Any) -> None:
    """The same, or one that reads at most 1 % more, of all but one of the models."""
    reads = [
        (least(left, BUDGET * part).cost, least(grid, BUDGET * part).cost)
        for _, left, grid, _ in searched
    ]
    missed = [pair for pair in reads if pair[0] > 1.01 * pair[1]]
    assert len(missed) <= 1, missed


def test_as_many_evaluations_spent_evenly_find_worse_rules(searched: Any) -> None:
    """Their intervals are twice as wide, so less is known to be within the budget."""
    raced, evenly = (
        sum(
            least(found, BUDGET * part).cost
            for each in searched
            for part in (1 / 4, 1 / 2)
            if (found := each[which])
        )
        for which in (1, 3)
    )
    assert raced < 0.99 * evenly


def test_more_text_goes_to_fewer_rules(searched: Any) -> None:
    for done, *_ in searched:
        counts = [rules for _, rules in done.rounds]
        assert [upto for upto, _ in done.rounds] == [1, 2, 4, 8, 16]
        assert counts == sorted(counts, reverse=True)
        assert counts[-1] == len(done.left)


def tried(increase: float, reads: float, spread: float, seed: int = 0) -> Tried:
    noise = np.random.default_rng(seed).normal(size=64)
    return Tried(
        Candidate(3, mix=increase), increase + spread * (noise - noise.mean()), reads, reads, 1.0, 1
    )


def test_what_surely_loses_more_and_reads_no_less_is_out() -> None:
    good, bad, less = tried(0.01, 30, 0.001), tried(0.02, 30, 0.001, 1), tried(0.02, 20, 0.001, 2)
    assert race.competing([bad, good, less], 0.05) == [good, less]


def test_what_could_be_as_good_stays_behind_the_better() -> None:
    good, near = tried(0.010, 30, 0.02), tried(0.012, 30, 0.02, 1)
    assert race.competing([near, good], 0.05) == [good, near]


def test_of_two_that_are_the_same_one_stays() -> None:
    assert len(race.competing([tried(0.01, 30, 0.02), tried(0.01, 30, 0.02)], 0.05)) == 1


def test_what_surely_costs_more_than_is_of_interest_is_out() -> None:
    assert race.competing([tried(0.10, 10, 0.01)], 0.05) == []
    assert len(race.competing([tried(0.06, 10, 0.1)], 0.05)) == 1


@pytest.mark.parametrize(
    ("k", "experts", "ranks"), [(8, 128, 1), (8, 128, 8), (2, 8, 1), (22, 512, 4), (6, 64, 2)]
)
def test_every_rule_is_one_that_the_server_takes_and_none_is_apart(
    k: int, experts: int, ranks: int
) -> None:
    found = space(k, experts, ranks)
    assert len({each.label for each in found.all}) == len(found.all)
    for rule in found.all:
        policy = rule.arm(ranks).policy
        assert policy is not None
        policy.check(k=k, num_experts=experts)
    reached, edge = set(found.start), list(found.start)
    while edge:
        edge = [new for each in edge for new in found.next_to[each] if new not in reached]
        reached |= set(edge)
    assert reached == set(found.all)
    assert len(found.start) < len(found.all) / 3


def test_floors_left_out_are_those_of_others() -> None:
    """A share of 0.13 lets at most seven experts of eight hold more, so k0 = 7 and 8 are one."""
    logits = torch.randn(4, 16, 64, generator=torch.Generator().manual_seed(0)) * 0.1
    router = Router(8, renormalize=True)
    kept = {(each.k0, each.share) for each in space(8, 64).all if each.pool == "union"}
    left_out = [
        (k0, share)
        for k0 in range(1, 8)
        for share in (0.08, 0.13, 0.2, 0.25)
        if (k0, share) not in kept
    ]
    assert (7, 0.13) in left_out
    for k0, share in left_out:
        same = Candidate(8, share) if k0 > 1 else Candidate(1)
        here, there = (rule.arm(1).policy for rule in (Candidate(k0, share), same))
        assert here is not None
        assert there is not None
        assert torch.equal(
            eager.route(logits, here, router).ids, eager.route(logits, there, router).ids
        )


def test_a_model_that_does_not_divide_has_no_mixtures() -> None:
    assert {each.mix for each in space(8, 128, renormalize=False).all} == {1.0}


def test_nothing_to_choose_is_said() -> None:
    with pytest.raises(ValueError, match="take 1 expert each"):
        space(1, 16)
    with pytest.raises(ValueError, match="--ranks=3: the model's 128 experts do not divide"):
        space(8, 128, 3)


def test_a_real_model_is_searched(model: Any, tmp_path: Any) -> None:
    """Through the routing that serves: reads fall along the front, and vanilla is what the model
    says."""
    from oea_server.lab.quality.search.ledger import Ledger
    from oea_server.lab.quality.search.measuring import offline
    from oea_server.lab.quality.text import Sequences

    ids = torch.randint(0, 64, (64, 9), generator=torch.Generator().manual_seed(1))
    text = Sequences(ids, ["a"] * 64, "0" * 64)
    found = space(4, 16)
    measure = offline(model, routers(model), text, 1, Ledger(tmp_path / "lines.jsonl", {}))(4)
    done = race.race(found, measure, 4, lambda loss: 0.02 * loss)
    assert done.evaluations <= done.whole / 4
    base = next(each for each in done.left if each.rule == found.base)
    assert base.kept == pytest.approx(1.0)
    assert all(each.reads <= base.reads * 1.01 for each in done.tried)
    sharp = min(done.tried, key=lambda each: each.reads)
    assert sharp.reads < 0.7 * base.reads
    assert sharp.kept < 0.9
