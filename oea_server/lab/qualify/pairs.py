"""A record's answers, two by two: what vanilla and a candidate said to the same prompt with the
same seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

from oea_server.lab.records.record import Record

VANILLA = "vanilla"
"""The name of the arm that all others are compared with."""


class Pair(NamedTuple):
    """Two answers to one prompt."""

    vanilla: Record
    candidate: Record

    @property
    def task(self) -> int:
        """Which prompt."""
        return int(self.candidate["task"])

    @property
    def checked(self) -> bool:
        """Whether either answer could be checked."""
        return self.vanilla["correct"] is not None or self.candidate["correct"] is not None

    @property
    def lost(self) -> bool:
        """Only vanilla is right. An answer that cannot be checked beside one that can is not
        right."""
        return bool(self.vanilla["correct"]) and not self.candidate["correct"]

    @property
    def won(self) -> bool:
        """Only the candidate is right."""
        return bool(self.candidate["correct"]) and not self.vanilla["correct"]


class Counts(NamedTuple):
    """Pairs of each prompt: won, lost, and in all."""

    won: list[int]
    lost: list[int]
    pairs: list[int]


def answers_of(record: Record, arm: str) -> list[Record]:
    """What an arm answered."""
    return [answer for answer in record["answers"] if answer["arm"] == arm]


def pairs(record: Record, candidate: str) -> list[Pair]:
    """All pairs, prompt by prompt; what has no partner is left out (`unpaired` counts it)."""
    vanilla = {_asked(answer): answer for answer in answers_of(record, VANILLA)}
    mine = {_asked(answer): answer for answer in answers_of(record, candidate)}
    return [Pair(vanilla[asked], mine[asked]) for asked in sorted(vanilla.keys() & mine.keys())]


def unpaired(record: Record, candidate: str) -> tuple[int, int]:
    """Answers of vanilla and of the candidate to which the other has none, or has more than one."""
    vanilla, mine = (Counter(map(_asked, answers_of(record, arm))) for arm in (VANILLA, candidate))
    return (vanilla - mine).total(), (mine - vanilla).total()


def counts(found: Iterable[Pair]) -> Counts:
    """Counts by prompt, over the pairs that could be checked."""
    checked = [pair for pair in found if pair.checked]
    by_prompt = [list(group) for _, group in groupby(checked, lambda pair: pair.task)]
    return Counts(
        [sum(pair.won for pair in group) for group in by_prompt],
        [sum(pair.lost for pair in group) for group in by_prompt],
        [len(group) for group in by_prompt],
    )


def _asked(answer: Record) -> tuple[int, int, int]:
    return answer["task"], answer["seed"], answer["round"]
