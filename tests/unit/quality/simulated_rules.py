"""A model that is a formula: what each rule truly loses and reads, and what little text says of
it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from oea_server.lab.quality.search.candidates import Candidate
from oea_server.lab.quality.search.ledger import Measured

SEQUENCES = 16
"""In a piece of text."""
VANILLA, TOP = 75.0, 2.5


def truth(seed: int) -> Callable[[Candidate], tuple[float, float]]:
    """-> increase in cross-entropy and experts read of a rule. Shapes are the demo model's; how
    steep they are, what a floor by share is worth and which mixture is best differ by seed, and
    each rule is some percent off."""
    dice = np.random.default_rng(seed)
    steep, first = dice.uniform(0.5, 1.1), dice.uniform(0.15, 0.4)
    adaptive, best, wide = dice.uniform(0.7, 1.1), dice.uniform(0.3, 0.8), dice.uniform(0.5, 3.0)
    voted = dice.uniform(0.8, 1.3)

    def of(rule: Candidate) -> tuple[float, float]:
        if rule.k0 == 8 and not rule.share:
            return 0.0, VANILLA
        held = min(rule.k0, 0.62 / rule.share if rule.share else 8.0)
        own = np.random.default_rng([seed, rule.k0, int(rule.share * 1000), rule.rank_budget or 0])
        reads = (
            VANILLA
            * (1 - math.exp(-held / 5.5))
            / (1 - math.exp(-8 / 5.5))
            * own.uniform(0.99, 1.01)
        )
        loses = first * (math.exp(-steep * held) - math.exp(-steep * 8))
        loses *= (
            (adaptive if rule.share else 1.0)
            * (1 + wide * (rule.mix - best) ** 2)
            * own.uniform(0.97, 1.03)
        )
        if (
            rule.pool == "budget"
            and rule.rank_budget is not None
            and reads < min(rule.rank_budget, VANILLA)
        ):
            wider = min(rule.rank_budget, VANILLA)
            loses *= (
                voted
                * (VANILLA - wider)
                / (VANILLA - reads)
                * math.exp(-2.5 * (wider - reads) / VANILLA)
            )
            reads = wider
        return loses, reads

    return of


def measured(seed: int) -> Callable[[Candidate, int], Measured]:
    """What a piece of text says of it. As on the demo model, a sequence's increase spreads as much
    as the increase itself, and goes along with that of like rules."""
    of = truth(seed)

    def measure(rule: Candidate, piece: int) -> Measured:
        loses, reads = of(rule)
        text = np.random.default_rng([seed, piece])
        base, common = text.normal(TOP, 0.4, SEQUENCES), text.normal(size=SEQUENCES)
        mine = np.random.default_rng(
            [
                seed,
                piece,
                rule.k0,
                int(rule.share * 1000),
                int(rule.mix * 10),
                rule.rank_budget or 0,
            ]
        )
        alone = mine.normal(size=SEQUENCES)
        spread = 0.02 * math.sqrt(loses / 0.02) if loses else 0.0
        increase = loses + spread * (0.85 * common + 0.5 * alone)
        return Measured(
            base + increase, reads * (1 + 0.002 * float(mine.normal())), reads, 1 - loses, SEQUENCES
        )

    return measure
