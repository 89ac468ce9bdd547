"""A judged record as files: JSON, CSV with a line for each answer, Markdown, and one HTML page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from oea_server.lab.qualify import against, compact, words
from oea_server.lab.qualify.document import document
from oea_server.lab.qualify.sections import sections
from oea_server.lab.records.record import Record
from oea_server.lab.records.tables import made_by, table

NAME = "qualify"
COLUMNS = (
    *(
        "arm",
        "round",
        "task",
        "group",
        "check",
        "seed",
        "correct",
        "tokens",
        "empty",
        "cut",
        "broken",
    ),
    *("seconds", "tpot", "text"),
)


def write(record: Record, folder: Path) -> list[Path]:
    """Write `qualify`.json, .csv, .md and .html of a judged record; every text is in .csv alone.

    Returns:
        Their paths, in that order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{NAME}.{suffix}" for suffix in ("json", "csv", "md", "html")]
    kept = compact.write(paths[0], record)
    for path, text in zip(paths[1:], (lines(record), markdown(kept), document(kept)), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def lines(record: Record) -> str:
    """CSV, a line for each answer. Texts are JSON's, so that an answer is one line, and no
    formula."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for answer in record["answers"]:
        writer.writerow({**answer, "text": json.dumps(answer["text"], ensure_ascii=False)})
    return text.getvalue()


def markdown(record: Record) -> str:
    """The page to keep beside the record, and what a terminal shows."""
    parts = [f"# Qualified: {record['model']['name']}, {record['machine']['name']}", ""]
    for name, verdict in record["verdicts"].items():
        parts += [
            f"## {_plain(words.headline(name, verdict))}",
            "",
            *_list([_plain(each) for each in verdict["refusals"] or [verdict["why"]]]),
            *_list(_told(record, name)),
            *_list([f"Note: {_plain(each)}." for each in verdict["notes"]]),
            "",
        ]
    for section in sections(record):
        rows = [[_plain(cell) for cell in row] for row in section.rows]
        parts += [f"## {section.title}", "", section.said, "", *table(section.header, rows), ""]
    if "against" in record and (other := against.changed(record)):
        parts += ["What else changed since:", "", *_list([_plain(each) for each in other]), ""]
    parts += [
        "## What was not tested",
        "",
        *_list([_plain(each) for each in words.not_tested(record)]),
        "",
    ]
    return "\n".join(
        [*parts, "## How it was made", "", *made_by(record, record["plan"]["seed"]), ""]
    )


def _told(record: Record, name: str) -> Iterator[str]:
    verdict = record["verdicts"][name]
    yield words.accuracy(verdict)
    yield f"Bought: {words.bought(verdict)}"
    yield f"Paid: {words.paid(verdict)}"


def _list(texts: Iterator[str] | list[str]) -> list[str]:
    return [f"- {text}" for text in texts]


def _plain(text: str) -> str:
    """Text of a group or candidate that a user named, without Markdown's marks."""
    for character in "\\`*[]<>|#":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
