"""Many records on one page: those of a folder whose names begin with the same word."""

from __future__ import annotations

import re
from collections.abc import Mapping

from benchmarks.kinds import KINDS
from oea_server.lab.records.record import Record

COMMAND = "python -m benchmarks"


def place(name: str) -> str:
    """Where a record's section is, from its folder: ``eval-rules`` -> ``eval.md#eval-rules``."""
    return f"{name.partition('-')[0]}.md#{name}"


def pages(records: Mapping[str, Record], machine: str) -> dict[str, str]:
    """File name -> Markdown, for a folder's records by name."""
    sections: dict[str, list[str]] = {}
    for name, record in records.items():
        file = place(name).partition("#")[0]
        sections.setdefault(file, []).append(section(name, record))
    return {file: _head(file, machine, found) for file, found in sections.items()}


def section(name: str, record: Record) -> str:
    """A record's page as a part of another: its name for a title, and every heading one lower."""
    title, _, rest = KINDS[record["benchmark"]].page(record, name).partition("\n")
    lower = re.sub(r"^#", "##", rest, flags=re.MULTILINE)
    return f"## {name}\n\n**{title.removeprefix('# ')}**\n{lower}"


def _head(file: str, machine: str, sections: list[str]) -> str:
    names = [section.partition("\n")[0].removeprefix("## ") for section in sections]
    contents = ", ".join(f"[{name}](#{name})" for name in names)
    lines = [
        f"# {file.removesuffix('.md')}: {machine}",
        f"Made by `{COMMAND}` from the JSON of the same names: {contents}.",
        *sections,
    ]
    return "\n\n".join(line.strip("\n") for line in lines) + "\n"
