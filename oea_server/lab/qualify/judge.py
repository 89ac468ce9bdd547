"""The verdict on each candidate of a record: no worse than the margin, worse, or the samples cannot
tell."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Final

from oea_server.lab.qualify import power
from oea_server.lab.qualify.arms import answered, cost, longer
from oea_server.lab.qualify.notes import notes
from oea_server.lab.qualify.pairs import VANILLA, Pair, counts, pairs
from oea_server.lab.qualify.refusals import refusals
from oea_server.lab.qualify.statistics import Difference, difference
from oea_server.lab.records.record import Record

NO_WORSE: Final = "no worse"
WORSE: Final = "worse"
CANNOT_TELL: Final = "cannot tell"
EXIT_CODES = {NO_WORSE: 0, CANNOT_TELL: 3, WORSE: 1}
"""From best to worst: of several candidates the last one counts."""


def judged(record: Record) -> Record:
    """The record with its `verdicts`, one for each candidate of its plan."""
    names = [candidate["name"] for candidate in record["plan"]["candidates"]]
    return {**record, "verdicts": {name: verdict(record, name) for name in names}}


def exit_code(record: Record) -> int:
    """Of a judged record: 0 if each candidate is shown to be no worse, 1 if one is shown to be
    worse, else 3."""
    found = [each["verdict"] for each in record["verdicts"].values()]
    return EXIT_CODES[max(found, key=list(EXIT_CODES).index)]


def so_far(record: Record) -> list[str]:
    """Of a run that goes on, a line for each candidate: the pairs that the margin takes, by the
    share that changed.

    It does not say in whose favour, so that nobody ends a run because of it.
    """
    plan, lines = record["plan"], []
    for name in (candidate["name"] for candidate in plan["candidates"]):
        counted = counts(pairs(record, name))
        if counted.pairs:
            seen = difference(*counted, plan["confidence"])
            told = power.reestimated(
                plan["margin"], plan["confidence"], seen.pairs, seen.discordance, seen.effect
            )
            lines.append(f"{name}: {told}")
    return lines


def verdict(record: Record, candidate: str) -> dict[str, Any]:
    """What is said of a candidate, as JSON.

    Returns:
        "verdict", "why" (a line), "refusals" (a line each), "notes" (likewise), "difference"
        (`Difference`, with "discordance" and "needed", the pairs that the margin takes at it; None
        where nothing was checked), "vanilla" and "candidate" (`arms.answered`), "longer" (tokens
        over vanilla's), "cost" (`arms.cost`), "groups".
    """
    found, plan = pairs(record, candidate), record["plan"]
    counted = counts(found)
    seen = difference(*counted, plan["confidence"]) if counted.pairs else None
    refused = refusals(record, candidate, found)
    said, why = (CANNOT_TELL, refused[0]) if refused or seen is None else concluded(seen, plan)
    tokens = longer(found, plan["confidence"])
    of_groups = groups(found, plan["confidence"])
    result: dict[str, Any] = {
        "verdict": said,
        "why": why,
        "refusals": refused,
        "difference": None if seen is None else _told(seen, plan),
        "vanilla": answered(record, VANILLA),
        "candidate": answered(record, candidate),
        "longer": None if tokens is None else tokens._asdict(),
        "cost": cost(record, candidate),
        "groups": of_groups,
    }
    return {**result, "notes": notes(record, found, result)}


def concluded(seen: Difference, plan: Record) -> tuple[str, str]:
    """What the interval says beside the margin, and why, in a line."""
    margin, points = plan["margin"], f"{100 * plan['margin']:g} points"
    reach = (
        f"{100 * seen.value:+.1f} points of right answers, with {plan['confidence']:.0%} confidence"
        f" between {100 * seen.low:+.1f} and {100 * seen.high:+.1f}"
    )
    if seen.low >= -margin:
        return NO_WORSE, f"{reach}: all of it within the margin of {points}"
    if seen.high < -margin:
        return WORSE, f"{reach}: all of it beyond the margin of {points}"
    takes = power.needed_pairs(margin, plan["confidence"], seen.discordance, seen.effect)
    enough = takes <= seen.pairs
    return CANNOT_TELL, (
        f"{reach}: on both sides of the margin of {points}. An equally good candidate is shown to"
        f" be so in 4 of 5 runs by {power.told(takes)} such pairs, and these are {seen.pairs:,}: "
        + (
            "this one likely loses something; more prompts tell how much"
            if enough
            else "take more prompts"
        )
    )


def groups(found: list[Pair], confidence: float) -> list[dict[str, Any]]:
    """Each group of tasks by itself, if there are several; without a verdict, for nothing was
    planned for them."""
    by_group = sorted(
        (pair for pair in found if pair.checked), key=lambda pair: str(pair.vanilla["group"])
    )
    result = []
    for name, members in groupby(by_group, lambda pair: str(pair.vanilla["group"])):
        mine = list(members)
        seen = difference(*counts(mine), confidence)
        result.append(
            {
                "group": name,
                "prompts": seen.prompts,
                "vanilla": sum(bool(pair.vanilla["correct"]) for pair in mine) / len(mine),
                "candidate": sum(bool(pair.candidate["correct"]) for pair in mine) / len(mine),
                "difference": {"value": seen.value, "low": seen.low, "high": seen.high},
            }
        )
    return result if len(result) > 1 else []


def _told(seen: Difference, plan: Record) -> dict[str, Any]:
    pairs_needed = power.needed_pairs(
        plan["margin"], plan["confidence"], seen.discordance, seen.effect
    )
    return {**seen._asdict(), "discordance": seen.discordance, "needed": pairs_needed}
