"""The prompts that are asked for are enough, and a broken candidate does not pass, by
simulation."""

from __future__ import annotations

import numpy as np
import pytest

from oea_server.lab.qualify import judge, power
from oea_server.lab.qualify.statistics import quantile, score
from tests.unit.qualify.simulated import pairs, record, scores

Z = quantile(0.95)
REPEATS = 100
NAME = "k0=1"


def shown(
    prompts: int,
    margin: float,
    discordance: float,
    true: float,
    seeds: int = 1,
    together: float = 0.0,
) -> float:
    """The share of simulated runs that are judged no worse: of 4,000, or with seeds of 1,000."""
    # prompts are as independent as seeds of one prompt that do not go together, and sooner drawn
    if seeds == 1:
        won, lost = (each.sum(1) for each in pairs(4000, 1, discordance, true, seeds=prompts))
        return float((score(won, lost, prompts, -margin) >= Z).mean())
    won, lost = pairs(1000, prompts, discordance, true, seeds, together)
    return float((scores(won, lost, seeds, -margin) >= Z).mean())


def error(share: float, runs: int) -> float:
    """Three standard deviations of a simulated share."""
    return 3 * float(np.sqrt(share * (1 - share) / runs))


@pytest.mark.parametrize(
    ("margin", "discordance"), [(0.02, 0.03), (0.05, 0.1), (0.05, 0.3), (0.1, 0.1)]
)
def test_the_prompts_asked_for_are_enough(margin: float, discordance: float) -> None:
    prompts = power.needed(margin, discordance)
    expected = power.chance(prompts, margin, discordance, 0.95)
    assert expected >= power.POWER
    assert shown(prompts, margin, discordance, 0.0) == pytest.approx(
        expected, abs=error(expected, 4000)
    )
    assert shown(prompts // 2, margin, discordance, 0.0) < 0.65


def test_seeds_asked_for_are_enough() -> None:
    prompts = power.needed(0.05, 0.1, seeds=4)
    assert prompts < power.needed(0.05, 0.1)
    assert shown(prompts, 0.05, 0.1, 0.0, 4, power.TOGETHER) >= power.POWER - error(
        power.POWER, 1000
    )


@pytest.mark.parametrize("prompts", [100, 678, 3000])
def test_a_candidate_at_the_margin_passes_as_seldom_as_the_confidence_says(prompts: int) -> None:
    found = shown(prompts, 0.05, 0.15, -0.05)
    assert found <= 0.025 + error(0.025, 4000)
    assert power.chance(prompts, 0.05, 0.15, 0.95, -0.05) == pytest.approx(
        found, abs=error(0.025, 4000)
    )


def test_a_broken_candidate_is_never_called_no_worse() -> None:
    prompts = power.needed(0.05)
    found = [
        judge.judged(record(prompts, difference=-0.08, discordance=0.12, seed=seed))["verdicts"][
            NAME
        ]["verdict"]
        for seed in range(REPEATS)
    ]
    assert found.count(judge.NO_WORSE) <= 5
    assert found.count(judge.WORSE) > 10


def test_vanilla_against_vanilla_passes_with_the_prompts_to_be_sure() -> None:
    prompts = power.needed(0.05, power.DISCORDANCE, 0.95, power.SURE)
    found = [
        judge.judged(record(prompts, discordance=power.DISCORDANCE, seed=seed))["verdicts"][NAME][
            "verdict"
        ]
        for seed in range(REPEATS)
    ]
    assert found.count(judge.NO_WORSE) >= 95
    assert found.count(judge.WORSE) == 0


def test_a_run_that_is_the_same_to_the_letter_needs_prompts_too() -> None:
    assert power.needed(0.02, 0.0) == 189
    assert (
        judge.judged(record(189, discordance=0.0, margin=0.02))["verdicts"][NAME]["verdict"]
        == judge.NO_WORSE
    )
    assert (
        judge.judged(record(188, discordance=0.0, margin=0.02))["verdicts"][NAME]["verdict"]
        == judge.CANNOT_TELL
    )


@pytest.mark.nightly
def test_the_prompts_asked_for_are_enough_on_a_fine_grid() -> None:
    for margin in (0.01, 0.02, 0.03, 0.05, 0.1, 0.2):
        for discordance in (0.0, 0.01, 0.03, 0.1, 0.2, 0.4):
            prompts = power.needed(margin, discordance)
            if discordance * prompts < 1:
                assert power.chance(prompts, margin, discordance, 0.95) >= power.POWER
                continue
            found = shown(prompts, margin, discordance, 0.0)
            assert found >= power.POWER - error(power.POWER, 4000), (margin, discordance)


def test_what_is_said_before_a_run() -> None:
    said = power.before(200, 0.02)
    assert "\n" not in said
    assert said.startswith("200 prompts: too few for a margin of 0.02, which takes 1,987 ")
    assert f"they show {power.shows(200):g}." in said
    assert power.before(5000, 0.02).startswith("5,000 prompts: enough")
    assert "each with 4 seeds" in power.before(200, 0.02, 0.95, 4)


def test_a_margin_that_nobody_can_show_is_said_to_be_one() -> None:
    assert "which takes more than 10,000,000 to be shown" in power.before(200, 0.00001)
    assert "takes more than 10,000,000 such pairs" in power.reestimated(0.00001, 0.95, 400, 0.03)
    assert power.shows(1) > 0.7


def test_the_margin_that_prompts_show_takes_no_more_prompts() -> None:
    for prompts in (50, 200, 1000):
        can = power.shows(prompts)
        assert power.chance(prompts, can, power.DISCORDANCE, 0.95) >= power.POWER
        assert power.chance(prompts, can - 0.002, power.DISCORDANCE, 0.95) < power.POWER


def test_what_is_said_once_some_rounds_ran() -> None:
    said = power.reestimated(0.02, 0.95, 400, 0.03)
    assert said.startswith("3.0% of 400 pairs changed")
    assert f"{power.needed(0.02, 0.03):,} such pairs" in said
    assert power.needed_pairs(0.02, 0.95, 0.03, 4.0) == pytest.approx(
        4 * power.needed(0.02, 0.03), rel=0.02
    )
