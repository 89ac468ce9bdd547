"""How many prompts a margin takes, and which margin some prompts can show: said before a run."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from oea_server.lab.qualify.statistics import quantile, score
from oea_server.lab.records.stats import Floats

DISCORDANCE = 0.10
"""Share of answers assumed to change between right and wrong, before any was asked for. It is a
guess and said to be one; the number of prompts grows in proportion to it."""
TOGETHER = 0.5
"""Assumed correlation between the changes of one prompt's seeds: 8 seeds then count as 1.8
prompts."""
POWER = 0.80
SURE = 0.98
MOST = 10_000_000
TAIL = 1e-9


def chance(
    prompts: int,
    margin: float,
    discordance: float,
    confidence: float,
    difference: float = 0.0,
    effect: float = 1.0,
) -> float:
    """The probability that `qualify` shows "no worse", exact but for what seeds do to each other.

    Args:
        prompts: pairs of answers.
        discordance: share of pairs that change sides, at least the size of `difference`.
        difference: the truth, candidate minus vanilla.
        effect: design effect, by which the pairs are divided.
    """
    number = max(round(prompts / effect), 1)
    changed = np.arange(*_central(number, discordance)).astype(float)
    least = _least_won(changed, number, margin, quantile(confidence))
    wins = (discordance + difference) / (2 * discordance) if discordance else 0.0
    passes = stats.binom.sf(least - 1, changed, wins)
    return float((stats.binom.pmf(changed, number, discordance) * passes).sum())


def needed(
    margin: float,
    discordance: float = DISCORDANCE,
    confidence: float = 0.95,
    power: float = POWER,
    seeds: int = 1,
) -> int:
    """Prompts with which an equally good candidate is shown to be no worse, in a share `power` of
    all runs.

    Returns:
        `MOST` where so many would not do.
    """
    assumed = effect(seeds)
    return _least(
        lambda prompts: (
            chance(prompts * seeds, margin, discordance, confidence, 0.0, assumed) >= power
        )
    )


def shows(
    prompts: int,
    discordance: float = DISCORDANCE,
    confidence: float = 0.95,
    power: float = POWER,
    seeds: int = 1,
) -> float:
    """The least margin, in steps of 0.001, that so many prompts show of an equally good
    candidate."""
    assumed = effect(seeds)
    steps = 1000

    def enough(step: int) -> bool:
        return chance(prompts * seeds, step / steps, discordance, confidence, 0.0, assumed) >= power

    return _least(enough, steps - 1) / steps


def effect(seeds: int) -> float:
    """The design effect assumed of so many seeds of one prompt."""
    return 1 + (seeds - 1) * TOGETHER


def before(prompts: int, margin: float, confidence: float = 0.95, seeds: int = 1) -> str:
    """What the run will be able to say: one line, before anything is asked."""
    can, takes = (
        shows(prompts, confidence=confidence, seeds=seeds),
        needed(margin, confidence=confidence, seeds=seeds),
    )
    sure = needed(margin, confidence=confidence, power=SURE, seeds=seeds)
    more = f", each with {seeds} seeds" if seeds > 1 else ""
    return (
        f"{prompts:,} prompts{more}: {'enough' if prompts >= takes else 'too few'} for a margin of"
        f" {margin:g}, which takes {told(takes)} to be shown in 4 of 5 runs of an equally good"
        f" candidate ({told(sure)} for 49 of 50); they show {can:g}. Assumed: {DISCORDANCE:.0%} of"
        " the answers change between right and wrong."
    )


def needed_pairs(
    margin: float, confidence: float, discordance: float, seen_effect: float = 1.0
) -> int:
    """Pairs of answers like those seen with which an equally good candidate is shown in 4 of 5
    runs."""
    return _least(
        lambda pairs: chance(pairs, margin, discordance, confidence, 0.0, seen_effect) >= POWER
    )


def reestimated(
    margin: float, confidence: float, pairs: int, discordance: float, seen_effect: float = 1.0
) -> str:
    """The necessary number of prompts once some rounds ran, from the share of answers that did
    change.

    Args:
        pairs: those that were compared until now.
        seen_effect: their design effect.
    """
    takes = told(needed_pairs(margin, confidence, discordance, seen_effect))
    return (
        f"{discordance:.1%} of {pairs:,} pairs changed between right and wrong: to show a margin of"
        f" {margin:g} of an equally good candidate takes {takes} such pairs"
    )


def told(number: int) -> str:
    """A number of prompts as it is said."""
    return f"{number:,}" if number < MOST else f"more than {MOST:,}"


def _central(number: int, share: float) -> tuple[int, int]:
    low, high = stats.binom.ppf([TAIL, 1 - TAIL], number, share)
    return max(int(low), 0), min(int(high), number) + 1


def _least_won(changed: Floats, number: int, margin: float, z: float) -> Floats:
    """Of so many changed pairs, how many the candidate has to win; more than all where winning all
    is not enough."""
    low, high = np.full_like(changed, -1), changed + 1
    for _ in range(math.ceil(math.log2(changed.max() + 3))):
        middle = np.floor((low + high) / 2)
        enough = score(middle, changed - middle, number, -margin) >= z
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


def _least(enough: Callable[[int], bool], most: int = MOST) -> int:
    """The least number that is enough, among those up to `most`; `most` if none is."""
    high = 1
    while high < most and not enough(high):
        high = min(high * 2, most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
