"""Intervals hold what they promise, by simulation, and are what their definition says."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from scipy import optimize, stats

from oea_server.lab.qualify.statistics import (
    design_effect,
    difference,
    quantile,
    ratio,
    score,
    told_from_one,
    wilson,
)
from tests.unit.qualify.other_intervals import newcombe, wald
from tests.unit.qualify.simulated import pairs, scores

Z = quantile(0.95)
RUNS = 10_000
WITHIN = 0.015
FEW = 8
"""Changed pairs below which an interval of counts cannot be nominal: it has to be wider, as where
none is won."""
LEAST = 0.93


def covered(prompts: int, discordance: float, true: float, seed: int) -> float:
    won, lost = (
        each.sum(1) for each in pairs(RUNS, 1, discordance, true, seeds=prompts, seed=seed)
    )
    return float((np.abs(score(won, lost, prompts, true)) <= Z).mean())


def check_coverage(
    sizes: tuple[int, ...], discordances: tuple[float, ...], losses: tuple[float, ...]
) -> None:
    for seed, (prompts, discordance, loss) in enumerate(product(sizes, discordances, losses)):
        if loss > discordance:
            continue
        found = covered(prompts, discordance, -loss, seed)
        assert found >= LEAST, (prompts, discordance, loss)
        if prompts * discordance >= FEW and prompts * (discordance - loss) / 2 >= 1:
            assert abs(found - 0.95) <= WITHIN, (prompts, discordance, loss, found)


def test_differences_are_covered_as_promised() -> None:
    check_coverage((50, 200, 1000), (0.02, 0.05, 0.1, 0.3), (0.0, 0.02, 0.04))


@pytest.mark.nightly
def test_differences_are_covered_on_a_fine_grid() -> None:
    check_coverage(
        (30, 50, 80, 120, 200, 400, 1000, 2000, 5000),
        (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.2, 0.3, 0.5, 0.8),
        (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2),
    )


def test_the_other_intervals_do_not_hold_where_nearly_all_answers_agree() -> None:
    least = {"wald": 1.0, "newcombe": 1.0, "tango": 1.0}
    dice = np.random.default_rng(0)
    for prompts, discordance, loss in product((50, 100, 200, 500), (0.02, 0.05), (0.0, 0.02)):
        lost, won = (discordance + loss) / 2, (discordance - loss) / 2
        drawn = dice.multinomial(prompts, [won, lost, 0.5 - lost, 0.5 - won], RUNS).astype(float)
        wins, losses, both, _ = drawn.T
        intervals = {
            "wald": wald(wins, losses, prompts),
            "newcombe": newcombe(wins, losses, both, prompts),
        }
        for name, (low, high) in intervals.items():
            held = ((low - 1e-9 <= -loss) & (-loss <= high + 1e-9)).mean()
            least[name] = min(least[name], float(held))
        held = (np.abs(score(wins, losses, prompts, -loss)) <= Z).mean()
        least["tango"] = min(least["tango"], float(held))
    assert least["wald"] < 0.7
    assert least["newcombe"] < 0.9
    assert least["tango"] >= LEAST
    none, both = np.zeros(1), np.full(1, 100.0)
    assert wald(none, none, 200)[0] == 0.0  # 200 answers alike would prove any margin
    assert (
        newcombe(none, none, both, 200)[0]
        > -0.01
        > -0.018
        > difference([0] * 200, [0] * 200, [1] * 200, 0.95).low
    )


@pytest.mark.parametrize("together", [0.0, 0.3, 0.9])
@pytest.mark.parametrize(("prompts", "seeds"), [(60, 4), (200, 8)])
def test_seeds_of_a_prompt_are_no_prompts_of_their_own(
    prompts: int, seeds: int, together: float
) -> None:
    for loss in (0.0, 0.04):
        won, lost = pairs(2000, prompts, 0.15, -loss, seeds, together)
        found = float((np.abs(scores(won, lost, seeds, -loss)) <= Z).mean())
        naive = float((np.abs(scores(won, lost, seeds, -loss, independent=True)) <= Z).mean())
        assert found >= 0.95 - WITHIN
        if together == 0.9:
            assert naive < 0.8  # what this test would find if seeds were taken for prompts


def test_a_score_is_what_its_definition_says() -> None:
    """The difference over its deviation, of the likeliest shares that differ by so much, found by
    search."""
    for won, lost, number, true in [
        (3, 9, 80, -0.02),
        (0, 4, 50, -0.1),
        (7, 1, 40, 0.3),
        (5, 5, 30, 0.0),
    ]:

        def unlikely(share: float, data: tuple[float, ...] = (won, lost, number, true)) -> float:
            wins, losses, total, apart = data
            rest = 1 - 2 * share - apart
            return -float(
                wins * np.log(share + apart)
                + losses * np.log(share)
                + (total - wins - losses) * np.log(rest)
            )

        bounds = max(-true, 0) + 1e-9, (1 - true) / 2 - 1e-9
        share = optimize.minimize_scalar(
            unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-10}
        ).x
        deviation = np.sqrt(number * (2 * share + true - true**2))
        assert score(won, lost, number, true) == pytest.approx(
            (won - lost - number * true) / deviation, rel=1e-4
        )


def test_the_ends_of_an_interval_are_where_the_score_is_the_quantile() -> None:
    seen = difference([1] * 6 + [0] * 94, [0] * 90 + [1] * 10, [1] * 100, 0.95)
    assert (seen.value, seen.won, seen.lost, seen.effect) == pytest.approx((-0.04, 6, 10, 1.0))
    assert score(6, 10, 100, seen.low) == pytest.approx(Z)
    assert score(6, 10, 100, seen.high) == pytest.approx(-Z)
    mirrored = difference([0] * 90 + [1] * 10, [1] * 6 + [0] * 94, [1] * 100, 0.95)
    assert (mirrored.low, mirrored.high) == pytest.approx((-seen.high, -seen.low))


def test_nothing_that_changed_is_no_proof_of_no_change() -> None:
    seen = difference([0] * 200, [0] * 200, [1] * 200, 0.95)
    assert seen.low == pytest.approx(-(Z**2) / (200 + Z**2))
    with pytest.raises(ValueError, match="no pairs"):
        difference([], [], [], 0.95)


def lows(seeds: int) -> list[float]:
    """Lower ends with 0, 1, ... 39 losses, each of another one of 100 prompts."""
    return [
        difference([0] * 100, [1] * lost + [0] * (100 - lost), [seeds] * 100, 0.95).low
        for lost in range(40)
    ]


@pytest.mark.parametrize("seeds", [1, 4])
def test_one_loss_more_does_not_look_better(seeds: int) -> None:
    assert all(after <= before + 1e-3 for before, after in pairwise(lows(seeds)))


def test_many_seeds_have_to_be_seen_apart_before_they_count_as_many() -> None:
    found = lows(16)
    assert found[1] < 0.8 * found[0]
    assert found[8] < 0.5 * found[0]
    assert found[39] < found[20] < found[8]


def test_the_same_answers_many_times_are_one_answer() -> None:
    once = difference([1] * 10 + [0] * 90, [0] * 85 + [1] * 15, [1] * 100, 0.95)
    often = difference([8] * 10 + [0] * 90, [0] * 85 + [8] * 15, [8] * 100, 0.95)
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=2e-3)
    assert design_effect(
        *np.array([[[8.0] * 10 + [0.0] * 90], [[0.0] * 100], [[8.0] * 100]])
    ) == pytest.approx(8.0)


def test_shares_have_wilsons_interval() -> None:
    for right, number in [(0, 20), (7, 20), (20, 20), (300, 1000)]:
        found, scipys = (
            wilson(right / number, number, 0.95),
            stats.binomtest(right, number).proportion_ci(method="wilson"),
        )
        assert (found.low, found.high) == pytest.approx((scipys.low, scipys.high), abs=1e-12)


def test_rounds_tell_a_change_of_speed_as_often_as_the_confidence_says() -> None:
    dice = np.random.default_rng(0)
    for rounds in (2, 5):
        logs = dice.normal(0.0, 0.1, (2000, rounds))
        told = np.mean([told_from_one(list(np.exp(each)), 0.95) for each in logs])
        assert told == pytest.approx(0.05, abs=WITHIN)
    assert told_from_one([0.80, 0.81, 0.79], 0.95)
    assert not told_from_one([0.3], 0.95)
    assert not told_from_one([1.0, 1.0], 0.95)


def test_ratios_of_lengths_are_covered_as_promised() -> None:
    dice = np.random.default_rng(0)
    true, runs, held = 1.08, 1500, 0
    for _ in range(runs):
        base = dice.lognormal(3.0, 0.8, 120)
        found = ratio(base * dice.lognormal(0, 0.4, 120) * true / np.exp(0.08), base, 0.95)
        assert found is not None
        held += found.low <= true <= found.high
    # lengths have a long tail: a little less than nominal
    assert abs(held / runs - 0.95) <= 2 * WITHIN
    assert ratio([0.0, 0.0], [1.0, 2.0], 0.95) is None
    assert ratio([1.0], [1.0], 0.95) is None
