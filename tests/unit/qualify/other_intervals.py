"""The intervals that `qualify` does not use, to show why."""

from __future__ import annotations

import numpy as np

from oea_server.lab.qualify.statistics import quantile
from tests.unit.qualify.simulated import Counts

Z = quantile(0.95)


def wald(won: Counts, lost: Counts, pairs: int) -> tuple[Counts, Counts]:
    """The difference and so many of its own standard deviations."""
    middle = (won - lost) / pairs
    reach = Z * np.sqrt(((won + lost) / pairs - middle**2) / pairs)
    return middle - reach, middle + reach


def newcombe(won: Counts, lost: Counts, both: Counts, pairs: int) -> tuple[Counts, Counts]:
    """Newcombe's paired score interval with his correction of phi (method 10, Statistics in
    Medicine 17, 1998).

    Args:
        both: pairs in which both are right.
    """
    mine, base = (both + won) / pairs, (both + lost) / pairs
    (low_mine, high_mine), (low_base, high_base) = _wilson(mine, pairs), _wilson(base, pairs)
    neither = pairs - both - won - lost
    together = both * neither - won * lost
    together = np.where(together > 0, np.maximum(together - pairs / 2, 0), together)
    root = np.sqrt(mine * (1 - mine) * base * (1 - base)) * pairs**2
    phi = np.where(root > 0, together / np.maximum(root, 1e-12), 0)
    low = _reach(mine - low_mine, high_base - base, phi)
    high = _reach(high_mine - mine, base - low_base, phi)
    return mine - base - low, mine - base + high


def _reach(one: Counts, other: Counts, phi: Counts) -> Counts:
    return np.sqrt(np.maximum(one**2 - 2 * phi * one * other + other**2, 0))  # type: ignore[no-any-return]


def _wilson(share: Counts, number: int) -> tuple[Counts, Counts]:
    middle = (share + Z**2 / (2 * number)) / (1 + Z**2 / number)
    half = Z * np.sqrt(share * (1 - share) / number + Z**2 / (4 * number**2)) / (1 + Z**2 / number)
    return middle - half, middle + half
