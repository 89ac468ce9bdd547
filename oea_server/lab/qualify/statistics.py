"""Intervals for what `qualify` compares: two arms that answered the same prompts.

The difference of two accuracies has Tango's score interval (Statistics in Medicine 17, 1998).
Wald's and Newcombe's paired intervals were tried beside it: where nearly all answers agree, the
usual case here, Wald's shrinks to nothing, and so does Newcombe's where vanilla is right half the
time. docs/qualify-statistics.md has the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from oea_server.lab.records.stats import Floats, Interval

WORST_CASE_PROMPTS = 4
"""As if so many more prompts had changed sides, with all their seeds together. A few changes say
little of how seeds go together. Without this, one loss would narrow the interval of 16 seeds to a
tenth of what it is with none."""
EDGE = 1e-12


class Difference(NamedTuple):
    """Candidate minus vanilla in the share of right answers.

    Args:
        value, low, high: the difference and its two-sided interval.
        won, lost: pairs that only the candidate, only vanilla had right.
        pairs: answers compared; prompts: different prompts among them.
        effect: how many times more pairs this takes than if seeds of a prompt went each its own way
            (design effect).
    """

    value: float
    low: float
    high: float
    won: int
    lost: int
    pairs: int
    prompts: int
    effect: float

    @property
    def discordance(self) -> float:
        """The share of pairs that changed sides."""
        return (self.won + self.lost) / self.pairs


def quantile(confidence: float) -> float:
    """Standard deviations that a two-sided interval of this confidence reaches to each side."""
    return float(stats.norm.ppf((1 + confidence) / 2))


def wilson(share: float, number: float, confidence: float) -> Interval:
    """The interval of a share of `number`; scipy's, but for shares that are means over seeds and so
    no whole counts."""
    z2 = quantile(confidence) ** 2
    middle = (share + z2 / (2 * number)) / (1 + z2 / number)
    half = np.sqrt(z2 * share * (1 - share) / number + z2 * z2 / (4 * number * number)) / (
        1 + z2 / number
    )
    return Interval(share, max(float(middle - half), 0.0), min(float(middle + half), 1.0))


def score(
    won: Floats | float, lost: Floats | float, pairs: Floats | float, difference: Floats | float
) -> Floats:
    """How many standard deviations the pairs lie above a true difference, which fixes the deviation
    (Tango's score).

    Args:
        won, lost: pairs that only the candidate, only vanilla had right; fractions where seeds go
            together.
        pairs: all pairs.
        difference: candidate minus vanilla, above -1 and below 1.
    """
    won, lost, pairs, difference = np.broadcast_arrays(
        *(np.asarray(x, float) for x in (won, lost, pairs, difference))
    )
    # the likeliest share of pairs that only vanilla has right, if that were the difference: root of
    # a x² + b x + c
    a = 2 * pairs
    b = (2 * pairs - won + lost) * difference - won - lost
    c = -lost * difference * (1 - difference)
    likeliest = (np.sqrt(np.maximum(b * b - 4 * a * c, 0)) - b) / (2 * a)
    above = won - lost - pairs * difference
    variance = np.maximum(pairs * (2 * likeliest + difference * (1 - difference)), EDGE)
    return np.where(np.abs(above) < EDGE, 0.0, above / np.sqrt(variance))


def difference(
    won: Sequence[int], lost: Sequence[int], pairs: Sequence[int], confidence: float
) -> Difference:
    """The difference of the accuracies with its interval.

    Args:
        won, lost, pairs: of each prompt, the pairs that only the candidate, only vanilla had right,
            and all of them. Seeds of one prompt are no independent samples: the counts are divided
            by the design effect.

    Raises:
        ValueError: there are no pairs.
    """
    gains, losses, sizes = (np.asarray(each, float) for each in (won, lost, pairs))
    total = float(sizes.sum())
    if total == 0:
        raise ValueError("no pairs of answers")
    effect = float(design_effect(gains[None], losses[None], sizes[None])[0])
    counts = float(gains.sum()) / effect, float(losses.sum()) / effect, total / effect
    z = quantile(confidence)
    return Difference(
        float((gains - losses).sum()) / total,
        _where(counts, z),
        _where(counts, -z),
        int(gains.sum()),
        int(losses.sum()),
        int(total),
        len(sizes),
        effect,
    )


def design_effect(won: Floats, lost: Floats, pairs: Floats) -> Floats:
    """The variance between prompts over that of pairs that were all independent, at least 1 (Rao
    and Scott's ratio).

    Args:
        won, lost, pairs: [repeats, prompts].

    Returns:
        [repeats], from 1 up to the pairs of a prompt.
    """
    total, prompts = pairs.sum(1), pairs.shape[1]
    most = (pairs * pairs).sum(1) / total
    mean = (won - lost).sum(1) / total
    independent = ((won + lost).sum(1) / total - mean * mean) / total
    spread = (
        ((won - lost - mean[:, None] * pairs) ** 2).sum(1)
        / total**2
        * prompts
        / max(prompts - 1, 1)
    )
    seen = np.where(independent > EDGE, spread / np.maximum(independent, EDGE), most)
    changed = ((won + lost) > 0).sum(1)
    effect: Floats = (changed * np.clip(seen, 1, most) + WORST_CASE_PROMPTS * most) / (
        changed + WORST_CASE_PROMPTS
    )
    return effect


def ratio(
    values: Sequence[float] | Floats, base: Sequence[float] | Floats, confidence: float
) -> Interval | None:
    """The ratio of two sums over the same prompts, with t's interval on its logarithm (delta
    method).

    Returns:
        None where a sum is 0, or there is only one prompt.
    """
    mine, other = np.asarray(values, float), np.asarray(base, float)
    number = len(mine)
    if number < 2 or mine.sum() <= 0 or other.sum() <= 0:
        return None
    value = float(mine.sum() / other.sum())
    deviation = np.sqrt(((mine - value * other) ** 2).sum() * number / (number - 1)) / mine.sum()
    reach = float(stats.t.ppf((1 + confidence) / 2, number - 1) * deviation)
    return Interval(value, value * float(np.exp(-reach)), value * float(np.exp(reach)))


def told_from_one(ratios: Sequence[float], confidence: float) -> bool:
    """Whether ratios, one a round, are not 1 on average: t's test of their logarithms. One ratio
    tells nothing."""
    logs = np.log(ratios)
    if len(logs) < 2:
        return False
    if np.ptp(logs) < EDGE:
        return bool(abs(logs[0]) > EDGE)
    return bool(stats.ttest_1samp(logs, 0.0).pvalue < 1 - confidence)


def _where(counts: tuple[float, float, float], wanted: float) -> float:
    """The difference at which the score is `wanted`; the end of what is possible where it never
    is."""

    def above(difference: float) -> float:
        return float(score(*counts, difference)) - wanted

    low, high = -1 + 1e-9, 1 - 1e-9
    if above(low) < 0:
        return -1.0
    if above(high) > 0:
        return 1.0
    return float(optimize.brentq(above, low, high, xtol=1e-9))
