"""The tables of a judged record, as text, for Markdown and HTML alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from oea_server.lab.qualify.words import percent, points
from oea_server.lab.records.record import Record
from oea_server.lab.records.tables import NONE, micro


class Section(NamedTuple):
    """A table, what it is about and how it is to be read."""

    title: str
    said: str
    header: Sequence[str]
    rows: list[list[str]]


def sections(record: Record) -> list[Section]:
    """All sections, in the order in which they are read."""
    verdicts, confidence = record["verdicts"], f"{record['plan']['confidence']:.0%}"
    found = [
        Section(
            "Right answers",
            "Candidate and vanilla answered the same prompts with the same seeds. Won: only the"
            f" candidate is right; lost: only vanilla. {confidence}: the interval, Wilson's of a"
            " share and Tango's of the difference, in points; seeds of one prompt are not counted"
            " as prompts of their own.",
            [
                "arm",
                "answers",
                "prompts",
                "right",
                confidence,
                "difference",
                confidence,
                "won",
                "lost",
                "verdict",
            ],
            list(_right(verdicts)),
        ),
        Section(
            "The answers themselves",
            "Over vanilla: all tokens together, with their interval over prompts. Cut: ended by the"
            " token limit. Broken: another script or format than vanilla's or than asked.",
            [
                "arm",
                "tokens per answer",
                "over vanilla",
                "empty",
                "cut",
                "broken",
                "not checked",
                "seconds (median)",
            ],
            list(_answers(verdicts)),
        ),
        Section(
            "Speed",
            "Medians over rounds; over vanilla: of the same round, median (lowest to highest). T:"
            " experts read per layer and step. Mass kept: the share of the router mass of the"
            " model's own choice that is still used. TPOT: what a client waits for each token after"
            " the first.",
            [
                *(
                    "arm",
                    "T",
                    "over vanilla",
                    "mass kept",
                    "TPOT, ms",
                    "over vanilla",
                    "tokens/s",
                    "over vanilla",
                ),
                "requests in a step",
            ],
            list(_speed(verdicts)),
        ),
        Section(
            "Group by group",
            f"Each group of tasks by itself, with a {confidence} interval that is not corrected for"
            " their number.",
            ["candidate", "group", "prompts", "vanilla right", "right", "difference", confidence],
            list(_groups(verdicts)),
        ),
        Section(
            "Release by release",
            "The same questions as in an older record. Change: in the share of right answers, now"
            " minus then, paired.",
            [
                *("arm", "right then", "right now", "change", confidence, "verdict then", "now"),
                *("TPOT over vanilla then", "now"),
            ],
            list(_then(record.get("against"))),
        ),
        Section(
            "Block by block",
            "In the order in which they were played.",
            [
                "arm",
                "round",
                "requests in a step",
                "T",
                "mass kept",
                "TPOT, ms",
                "tokens/s",
                "seconds",
            ],
            [_block(block) for block in record["blocks"]],
        ),
    ]
    return [section for section in found if section.rows]


def _arms(verdicts: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any] | None]]:
    """Vanilla once, then every candidate: its name, what it answered, its verdict."""
    yield "vanilla", next(iter(verdicts.values()))["vanilla"], None
    for name, verdict in verdicts.items():
        yield name, verdict["candidate"], verdict


def _right(verdicts: dict[str, Any]) -> Iterator[list[str]]:
    for name, mine, verdict in _arms(verdicts):
        right = mine["right"]
        row = [
            name,
            f"{mine['answers']:,}",
            f"{mine['prompts']:,}",
            percent(right and right["value"]),
        ]
        row.append(f"{percent(right['low'])} to {percent(right['high'])}" if right else NONE)
        seen = verdict and verdict["difference"]
        row += [*_difference(seen), str(seen["won"]), str(seen["lost"])] if seen else [NONE] * 4
        yield [*row, verdict["verdict"] if verdict else NONE]


def _answers(verdicts: dict[str, Any]) -> Iterator[list[str]]:
    for name, mine, verdict in _arms(verdicts):
        yield [
            name,
            NONE if mine["tokens"] is None else f"{mine['tokens']:.1f}",
            _ratio(verdict and verdict["longer"], 3),
            *(f"{mine[each]:,}" for each in ("empty", "cut", "broken", "unchecked")),
            NONE if mine["seconds"] is None else f"{mine['seconds']:.2f}",
        ]


def _speed(verdicts: dict[str, Any]) -> Iterator[list[str]]:
    for name, _, verdict in _arms(verdicts):
        costs = (verdict or next(iter(verdicts.values())))["cost"]
        arm = "candidate" if verdict else "vanilla"

        def over(
            measure: str, costs: dict[str, Any] = costs, verdict: dict[str, Any] | None = verdict
        ) -> str:
            return _ratio(costs[measure]["ratio"], 2) if verdict else NONE

        yield [
            name,
            number(costs["unique"][arm], 1),
            over("unique"),
            number(costs["mass_kept"][arm], 3),
            micro(_ms(costs["tpot"][arm])),
            over("tpot"),
            number(costs["tokens_per_s"][arm], 1),
            over("tokens_per_s"),
            number(costs["batch"][arm], 1),
        ]


def _groups(verdicts: dict[str, Any]) -> Iterator[list[str]]:
    for name, verdict in verdicts.items():
        for each in verdict["groups"]:
            shares = percent(each["vanilla"]), percent(each["candidate"])
            yield [
                name,
                each["group"],
                f"{each['prompts']:,}",
                *shares,
                *_difference(each["difference"]),
            ]


def _then(against: Record | None) -> Iterator[list[str]]:
    for each in against["arms"] if against else ():
        yield [
            each["arm"],
            percent(each["then"]),
            percent(each["now"]),
            *_difference(each["difference"]),
            each["verdict_then"] or NONE,
            each["verdict_now"] or NONE,
            _ratio(each["tpot_then"], 2),
            _ratio(each["tpot_now"], 2),
        ]


def _block(block: Record) -> list[str]:
    return [
        block["arm"],
        str(block["round"] + 1),
        number(block["batch"], 1),
        number(block["unique"], 1),
        number(block["mass_kept"], 3),
        micro(_ms(block["tpot"])),
        number(block["tokens_per_s"], 1),
        number(block["seconds"], 1),
    ]


def _difference(seen: dict[str, Any]) -> list[str]:
    return [points(seen["value"]), f"{points(seen['low'])} to {points(seen['high'])}"]


def _ratio(found: dict[str, float] | None, digits: int) -> str:
    if found is None:
        return NONE
    value, low, high = (f"{found[each]:.{digits}f}" for each in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def number(value: float | None, digits: int) -> str:
    """A number, or that there is none."""
    return NONE if value is None else f"{value:.{digits}f}"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds
