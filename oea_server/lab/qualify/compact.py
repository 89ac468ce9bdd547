"""The record of `qualify` as a file: answers by column, and the text of those that changed sides.

Of 720 tasks and four arms, short answers, a file is a sixth of one with every answer on its own.
Statistics and pages need nothing that is left out. The run's folder holds every text, in
`answers.jsonl` and `qualify.csv`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oea_server.lab.qualify.pairs import VANILLA, pairs
from oea_server.lab.records import files
from oea_server.lab.records.record import Record

FORM = 2
"""What is written: answers by column. Form 1 held every answer with its text."""
READ = (1, 2)
LONGEST = 600
"""Characters of an answer that are shown."""
PLACES = 5
"""Of seconds: no clock of a client is finer."""
TEXT = "text"
LEFT_OUT = (
    "the texts of answers that did not change sides beside vanilla's, and of the others what "
    f"follows the first {LONGEST} characters"
)


def write(path: Path, record: Record) -> Record:
    """Keep a judged record.

    Returns:
        What a reader of the file gets.
    """
    path.write_text(files.line(packed(record)), encoding="utf-8")
    return read(path)


def read(path: Path) -> Record:
    """A record of either form.

    Raises:
        OSError, ValueError: there is no such file, or it is no JSON.
    """
    return unpacked(files.read(path))


def packed(record: Record) -> Record:
    """The record with its answers as columns; nothing else of it is changed."""
    answers = record["answers"]
    names = [name for name in (answers[0] if answers else ()) if name != TEXT]
    columns = {name: _column([_rounded(answer[name]) for answer in answers]) for name in names}
    # one character more than is shown, so that a page can say that there was more
    texts = {str(place): answers[place][TEXT][: LONGEST + 1] for place in sorted(_changed(record))}
    kept = {"number": len(answers), "left out": LEFT_OUT, "columns": columns, "texts": texts}
    return {**record, "form": FORM, "answers": kept}


def unpacked(content: Record) -> Record:
    """The record with an answer a dictionary again; its "text" only where that was kept.

    One of form 1 comes back as it is.
    """
    kept = content["answers"]
    if isinstance(kept, list):
        return content
    columns = {name: _values(column) for name, column in kept["columns"].items()}
    answers = [
        {name: column[place] for name, column in columns.items()} for place in range(kept["number"])
    ]
    for place, text in kept["texts"].items():
        answers[int(place)][TEXT] = text
    return {**content, "answers": answers}


def _changed(record: Record) -> set[int]:
    """The places of answers that changed sides, vanilla's beside each candidate's."""
    place = {id(answer): number for number, answer in enumerate(record["answers"])}
    arms = {answer["arm"] for answer in record["answers"]} - {VANILLA}
    return {
        place[id(answer)]
        for arm in arms
        for pair in pairs(record, arm)
        if pair.won or pair.lost
        for answer in pair
    }


def _rounded(value: Any) -> Any:
    return round(value, PLACES) if isinstance(value, float) else value


def _column(values: Sequence[Any]) -> Any:
    """Numbers as they are; each different word or flag once, and its number where it stands."""
    if any(type(each) in (int, float) for each in values):
        return list(values)
    different = list(dict.fromkeys(values))
    return {"values": different, "at": [different.index(each) for each in values]}


def _values(column: Any) -> list[Any]:
    if isinstance(column, list):
        return column
    return [column["values"][number] for number in column["at"]]
