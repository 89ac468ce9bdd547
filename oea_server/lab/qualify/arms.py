"""What is counted of one arm's answers, and what an arm's blocks cost beside vanilla's of the same
round."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from oea_server.lab.qualify.pairs import VANILLA, Pair, answers_of
from oea_server.lab.qualify.statistics import ratio, told_from_one, wilson
from oea_server.lab.records.record import Record
from oea_server.lab.records.stats import Interval

MEASURES = ("unique", "mass_kept", "tpot", "tokens_per_s", "batch")


def answered(record: Record, arm: str) -> dict[str, Any]:
    """An arm's answers: how many are right, with Wilson's interval over prompts, empty, cut,
    broken, how long."""
    mine = answers_of(record, arm)
    checked = [answer for answer in mine if answer["correct"] is not None]
    prompts = len({answer["task"] for answer in checked})
    share = sum(answer["correct"] for answer in checked) / len(checked) if checked else 0.0
    return {
        "answers": len(mine),
        "unchecked": len(mine) - len(checked),
        "prompts": prompts,
        "right": (
            wilson(share, prompts, record["plan"]["confidence"])._asdict() if checked else None
        ),
        **{name: sum(bool(answer[name]) for answer in mine) for name in ("empty", "cut", "broken")},
        "tokens": statistics.fmean(answer["tokens"] for answer in mine) if mine else None,
        "seconds": statistics.median(answer["seconds"] for answer in mine) if mine else None,
    }


def longer(found: Sequence[Pair], confidence: float) -> Interval | None:
    """The candidate's tokens over vanilla's, all answers together; the interval is over prompts."""
    by_prompt: dict[int, tuple[float, float]] = {}
    for pair in found:
        mine, base = by_prompt.get(pair.task, (0.0, 0.0))
        by_prompt[pair.task] = mine + pair.candidate["tokens"], base + pair.vanilla["tokens"]
    both = list(by_prompt.values())
    return ratio([mine for mine, _ in both], [base for _, base in both], confidence)


def cost(record: Record, candidate: str) -> dict[str, Any]:
    """What the blocks of an arm measured, by measure: its own median, vanilla's, and candidate over
    vanilla by round.

    Returns:
        measure -> {"vanilla", "candidate", "ratio": {"value", "low", "high", "told"} or None}:
        medians, lowest and highest ratio of a round, whether the rounds tell it from 1; None where
        nothing was measured.
    """
    return {measure: _compared(record, candidate, measure) for measure in MEASURES}


def _compared(record: Record, candidate: str, measure: str) -> dict[str, Any]:
    mine, base = (_by_round(record, arm, measure) for arm in (candidate, VANILLA))
    ratios = [
        mine[each] / base[each]
        for each in sorted(mine.keys() & base.keys())
        if base[each] and mine[each]
    ]
    return {
        "vanilla": statistics.median(base.values()) if base else None,
        "candidate": statistics.median(mine.values()) if mine else None,
        "ratio": _middle(ratios, record["plan"]["confidence"]) if ratios else None,
    }


def _middle(ratios: Sequence[float], confidence: float) -> dict[str, Any]:
    middle = Interval(statistics.median(ratios), min(ratios), max(ratios))
    return {**middle._asdict(), "told": told_from_one(ratios, confidence)}


def _by_round(record: Record, arm: str, measure: str) -> dict[int, float]:
    """The mean of the arm's blocks in each round."""
    found: dict[int, list[float]] = {}
    for block in record["blocks"]:
        if block["arm"] == arm and block[measure] is not None:
            found.setdefault(block["round"], []).append(block[measure])
    return {each: statistics.fmean(values) for each, values in found.items()}
