"""Successive halving on the Pareto front: all rules on little text, those that could still be on
the front on more.

It knows no model: what it is given measures one rule on one piece of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oea_server.lab.quality.search.candidates import Candidate, Space
from oea_server.lab.quality.search.ledger import Measured

DEVIATIONS = 3.0
"""Standard errors that a difference has to be away from nothing: very many are looked at."""
READS_ALIKE = 0.005
"""Rules whose reads differ by less, of themselves, read as much: the mixture alone does not change
what is read."""
LOSES_ALIKE = 0.05
"""A rule is not worth measuring further if another is surely no worse by more than this part of its
own loss."""
TINY = 1e-9
"""Nats: what divides where a difference has no spread."""
PART = 0.25
"""Of what measuring every rule on all of the text would take, what a search takes at most."""


class Tried(NamedTuple):
    """One rule at one batch size, on the pieces of the text that it was measured on.

    Args:
        increase: in cross-entropy over vanilla, by sequence, nats per token [S].
        reads: experts per layer and step.
        unique: T.
        kept: router mass over vanilla's.
        pieces: of the text.
    """

    rule: Candidate
    increase: NDArray[np.float64]
    reads: float
    unique: float
    kept: float
    pieces: int

    @property
    def mean(self) -> float:
        """Mean of the increase, nats per token."""
        return float(self.increase.mean())


class Race(NamedTuple):
    """Args:
    limit: the largest increase that was of interest, nats per token.
    tried: every rule that was measured, on as much text as it was.
    left: those of them that were measured on all of it.
    evaluations: rules times pieces that it took.
    whole: what the whole grid would have taken.
    rounds: pieces of the text, and rules measured on so many.
    """

    limit: float
    tried: list[Tried]
    left: list[Tried]
    evaluations: int
    whole: int
    rounds: list[tuple[int, int]]


class Course:
    """Rules at one batch size, each on the first so many pieces of the text."""

    def __init__(self, base: Candidate, measure: Callable[[Candidate, int], Measured]) -> None:
        self.lines: dict[Candidate, list[Measured]] = {}
        self._base, self._measure = base, measure

    @property
    def used(self) -> int:
        """Evaluations: rules times pieces."""
        return sum(map(len, self.lines.values()))

    def run(self, rules: Iterable[Candidate], pieces: int) -> None:
        """Measure rules on as many pieces, but for what is known."""
        for rule in rules:
            mine = self.lines.setdefault(rule, [])
            mine += [self._measure(rule, piece) for piece in range(len(mine), pieces)]

    def tried(self, rule: Candidate, pieces: int | None = None) -> Tried:
        """What is known of a rule, or what the first so many pieces say."""
        mine = self.lines[rule][:pieces]
        base = self.lines[self._base][: len(mine)]
        increase = np.concatenate([a.loss - b.loss for a, b in zip(mine, base, strict=True)])
        reads, unique, kept = np.mean(
            [(each.reads, each.unique, each.kept) for each in mine], axis=0
        ).tolist()
        return Tried(rule, increase, reads, unique, kept, len(mine))


def race(
    found: Space,
    measure: Callable[[Candidate, int], Measured],
    pieces: int,
    allowed: Callable[[float], float],
) -> Race:
    """Search at one batch size.

    Args:
        measure: one rule on one piece.
        pieces: of the text.
        allowed: vanilla's cross-entropy, nats per token -> the largest increase that is of
            interest.
    """
    course = Course(found.base, measure)
    whole = len(found.all) * pieces
    room = int(PART * whole)
    course.run([found.base], pieces)
    limit = allowed(float(np.concatenate([each.loss for each in course.lines[found.base]]).mean()))
    explore(found, course, limit, room // 2)
    rounds = [(1, len(course.lines))]
    alive = list(course.lines)
    steps = [*(1 << i for i in range(1, pieces.bit_length()) if 1 << i < pieces), pieces]
    for left, (before, upto) in zip(range(len(steps), 0, -1), pairwise([1, *steps]), strict=True):
        quota = (room - course.used) // left // (upto - before)
        best = competing([course.tried(rule, before) for rule in alive], limit)
        alive = list(dict.fromkeys([found.base, *(each.rule for each in best[: max(quota, 1)])]))
        course.run(alive, upto)
        rounds.append((upto, len(alive)))
    tried = [course.tried(rule) for rule in course.lines]
    return Race(
        limit, tried, [each for each in tried if each.pieces == pieces], course.used, whole, rounds
    )


def explore(found: Space, course: Course, limit: float, room: int) -> None:
    """One piece of the text: a coarse grid, then what lies beside the rules that compete, until
    nothing new does.

    Args:
        room: evaluations, after which it ends in any case.
    """
    course.run(found.start, 1)
    while True:
        best = competing([course.tried(rule, 1) for rule in course.lines], limit)
        # those nearest to the front first: what lies beside them is the likeliest to be on it
        new = [
            rule for each in best for rule in found.next_to[each.rule] if rule not in course.lines
        ]
        new = list(dict.fromkeys(new))[: max(room - course.used, 0)]
        if not new:
            return
        course.run(new, 1)


def competing(points: Sequence[Tried], limit: float) -> list[Tried]:
    """The rules that could still be on the front, the likeliest first; all measured on the same
    text.

    Args:
        limit: the largest increase that is of interest, nats per token.
    """
    ordered = sorted(points, key=lambda each: (each.mean, each.reads))
    increases = np.stack([each.increase for each in ordered])
    mean, reads = increases.mean(axis=1), np.array([each.reads for each in ordered])
    error = _errors(increases)
    alone = increases.std(axis=1, ddof=1) / np.sqrt(increases.shape[1])
    likely: list[int] = []
    for mine in range(len(ordered)):
        if mean[mine] - DEVIATIONS * alone[mine] > limit:
            continue
        rivals = np.array(
            [each for each in likely if reads[each] <= reads[mine] * (1 + READS_ALIKE)], dtype=int
        )
        most = mean[rivals] - mean[mine] + DEVIATIONS * error[rivals, mine]
        if not (most <= LOSES_ALIKE * max(mean[mine], 0.0)).any():
            likely.append(mine)

    def behind(mine: int) -> float:
        """How surely one that reads no more loses less: standard errors, 0 on the front."""
        rival = next(
            (each for each in likely if reads[each] <= reads[mine] * (1 + READS_ALIKE)), mine
        )
        return float((mean[mine] - mean[rival]) / max(error[rival, mine], TINY))

    return [ordered[each] for each in sorted(likely, key=behind)]


def _errors(increases: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard errors of the mean differences of every two rows of [C, S]: [C, C]."""
    together = np.atleast_2d(np.cov(increases))
    own = np.diag(together)
    spread = np.maximum(own[:, None] + own[None, :] - 2 * together, 0.0)
    errors: NDArray[np.float64] = np.sqrt(spread / increases.shape[1])
    return errors
