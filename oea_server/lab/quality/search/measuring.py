"""A rule on a piece of the text, by the implementation that serves on that device."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from oea_server.lab.quality.measure import Judge
from oea_server.lab.quality.routed import Routers
from oea_server.lab.quality.search.candidates import Candidate
from oea_server.lab.quality.search.ledger import Ledger, Measured
from oea_server.lab.quality.text import Sequences

LEAST = 16
"""Sequences in a piece, or the batch size where that is more."""
JUDGES = 32
"""Pieces of which what vanilla says is held in memory."""

Measure = Callable[[Candidate, int], Measured]
"""A rule and the number of a piece."""


def piece_of(batch: int) -> int:
    """Sequences in a piece at a batch size."""
    return max(LEAST, batch)


def pieces(sequences: int, batch: int) -> int:
    """Pieces that the text has at a batch size."""
    return sequences // piece_of(batch)


def offline(
    model: Any, found: Routers, text: Sequences, ranks: int, ledger: Ledger
) -> Callable[[int], Measure]:
    """For a batch size, what measures at it; `ledger` keeps it.

    Args:
        ranks: equal parts of the experts, of which the busiest counts as read; 1 for T.
    """
    judges: OrderedDict[tuple[int, int], Judge] = OrderedDict()

    def judge(batch: int, piece: int) -> Judge:
        size = piece_of(batch)
        if (size, piece) not in judges:
            ids = text.ids[piece * size : (piece + 1) * size]
            judges[size, piece] = Judge(model, found, ids.to(model.device))
            if len(judges) > JUDGES:
                judges.popitem(last=False)
        return judges[size, piece]

    def at(batch: int) -> Measure:
        def measure(rule: Candidate, piece: int) -> Measured:
            def now() -> Measured:
                by = judge(batch, piece)
                it = by.measure(rule.arm(ranks), batch, (ranks,))
                mean = {
                    name: float(np.mean(values))
                    for name, values in (("t", it.unique), ("kept", it.kept))
                }
                reads = float(np.mean(it.busiest[ranks]))
                tokens = by.ids.shape[0] * (by.ids.shape[1] - 1)
                return Measured(
                    np.asarray(it.loss),
                    round(reads, 4),
                    round(mean["t"], 4),
                    round(mean["kept"], 5),
                    tokens,
                )

            return ledger.get((batch, piece, rule.label), now)

        return measure

    return at
