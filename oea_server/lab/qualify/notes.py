"""What a reader should know beside the verdict, a line each; none of it changes the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from oea_server.lab.qualify.pairs import Pair
from oea_server.lab.records.record import Record

MANY = 0.05
"""Share of answers from which cut, unchecked or broken ones are pointed out."""
SAME_LOAD = 0.1
SAME_T = 0.98
SAME_TIME = 0.99


def notes(record: Record, found: Sequence[Pair], verdict: dict[str, Any]) -> list[str]:
    """All that applies.

    Args:
        verdict: what `judge.verdict` says but for its notes.
    """
    return [
        *_standard(found),
        *_answers(verdict),
        *_bought(verdict),
        *_groups(record, verdict),
        *_rounds(record),
    ]


def _standard(found: Sequence[Pair]) -> Iterator[str]:
    checked = [pair for pair in found if pair.checked]
    agree = sum(pair.vanilla["check"] == "agree" for pair in checked)
    if agree:
        yield (
            f"{agree} of {len(checked)} answers were only compared with vanilla's own: another"
            " answer counts as wrong there, though it need not be"
        )
    others = [pair for pair in checked if pair.vanilla["check"] != "agree"]
    if others and all(pair.vanilla["correct"] for pair in others):
        yield (
            "vanilla got every checked answer right: the tasks may be too easy to show what harder"
            " ones would lose"
        )


def _answers(verdict: dict[str, Any]) -> Iterator[str]:
    mine, base = verdict["candidate"], verdict["vanilla"]
    for name, means in (
        ("cut", "were cut at the token limit, so how long they would have been is not known"),
        ("unchecked", "could not be checked"),
    ):
        if max(mine[name], base[name]) > MANY * max(mine["answers"], 1):
            yield f"{mine[name]} of the candidate's answers and {base[name]} of vanilla's {means}"
    for name, means in (("empty", "empty"), ("broken", "broken (another script or format)")):
        if mine[name] - base[name] > MANY * max(mine["answers"], 1):
            yield f"{mine[name]} of the candidate's answers are {means}, {base[name]} of vanilla's"


def _bought(verdict: dict[str, Any]) -> Iterator[str]:
    read, load = verdict["cost"]["unique"]["ratio"], verdict["cost"]["batch"]
    if load["ratio"] is not None and abs(load["ratio"]["value"] - 1) > SAME_LOAD:
        yield (
            f"a decode step had {load['candidate']:.1f} requests with the candidate and"
            f" {load['vanilla']:.1f} with vanilla: experts read and speed are of different loads"
        )
    if read is None:
        yield "experts read were not measured in the same rounds for both"
    elif read["value"] >= SAME_T:
        yield (
            "the candidate read as many experts as vanilla: nothing was bought, and a difference in"
            " speed is not its doing"
        )
    elif (tpot := verdict["cost"]["tpot"]["ratio"]) is not None and not tpot["told"]:
        yield (
            "fewer experts were read, and these rounds do not tell whether a token took less time:"
            " take more rounds"
        )
    elif (takes := _takes(verdict)) is not None and takes >= SAME_TIME:
        yield (
            f"fewer experts were read, and decoding an answer took {takes:.2f} times as long as"
            " with vanilla: nothing was gained on this machine at this load"
        )


def _takes(verdict: dict[str, Any]) -> float | None:
    """The time to decode an answer over vanilla's: time per token by tokens."""
    tpot, longer = verdict["cost"]["tpot"]["ratio"], verdict["longer"]
    return None if tpot is None or longer is None else float(tpot["value"] * longer["value"])


def _groups(record: Record, verdict: dict[str, Any]) -> Iterator[str]:
    worse = [
        each["group"]
        for each in verdict["groups"]
        if each["difference"]["high"] < -record["plan"]["margin"]
    ]
    if worse:
        yield (
            f"taken alone, worse than the margin in {', '.join(worse)} (not corrected for looking"
            " at every group)"
        )


def _rounds(record: Record) -> Iterator[str]:
    if len({block["round"] for block in record["blocks"]}) < 2:
        yield "one round: nothing says how much speed varies between rounds"
