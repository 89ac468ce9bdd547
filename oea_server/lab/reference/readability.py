"""How readable documents and docstrings are: python -m oea_server.lab.reference.readability.

A page's sentences, and the first sentence of each docstring, have at most 25 words and name what
they are about. Lines have at most 100 columns.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from oea_server.lab.reference import docstrings, sentences
from oea_server.lab.reference.page import ROOT, WIDTH

NO_PAGES = ("results", "shared", "build", "dist", "node_modules")
"""Folders whose pages are records, or are not ours."""
HEAD = f"{'':34} sentences  words  p90  longest  bare openings  lines above {WIDTH}"


def pages() -> list[Path]:
    """Every page of the repository, but for records."""
    found = []
    for folder, inner, files in os.walk(ROOT):
        inner[:] = [each for each in inner if each[0] != "." and each not in NO_PAGES]
        found += [Path(folder, each) for each in files if each.endswith(".md")]
    return sorted(found)


def of_page(name: str, text: str) -> tuple[str, list[str]]:
    """The line that is printed of a page, and what is beyond the limits in it."""
    found = sentences.of_page(text)
    wide = [line for line in sentences.prose(text) if len(line) > WIDTH]
    beyond = [*sentences.faults(found), *(f"{len(line)} columns: {line}" for line in wide)]
    return line(name, sentences.count(found), len(wide)), beyond


def of_room(name: str, sources: dict[str, str]) -> tuple[str, list[str]]:
    """As `of_page`, for the docstrings of a room: a module's path -> its text."""
    found, beyond, wide = [], [], 0
    for path, source in sources.items():
        firsts = [docstrings.first(text) for _, text in docstrings.of(source)]
        columns = docstrings.wide(source, WIDTH)
        beyond += [f"{path}: {fault}" for fault in sentences.faults(firsts)]
        beyond += [f"{path}: {columns} lines above {WIDTH} columns"] if columns else []
        found += firsts
        wide += columns
    return line(name, sentences.count(found), wide), beyond


def line(name: str, counted: sentences.Count, wide: int) -> str:
    return (
        f"{name:34} {counted.sentences:9} {counted.words:6.1f} {counted.ninth:4.0f}"
        f" {counted.longest:8} {counted.opens:14} {wide:16}"
    )


def check() -> Iterator[str]:
    """Print a line for each page and room; yield what is beyond the limits."""
    print(f"pages{HEAD[5:]}")
    for path in pages():
        name = str(path.relative_to(ROOT))
        said, beyond = of_page(name, path.read_text(encoding="utf-8"))
        print(said)
        yield from (f"{name}: {each}" for each in beyond)
    print(f"docstrings, first sentences{HEAD[27:]}")
    for room, paths in docstrings.rooms().items():
        said, beyond = of_room(
            room, {str(each.relative_to(ROOT)): each.read_text(encoding="utf-8") for each in paths}
        )
        print(said)
        yield from beyond


def main() -> None:
    """Exit with 1 where something is beyond the limits, and name each place."""
    beyond = list(check())
    if beyond:
        print(
            f"above {sentences.MOST_WORDS} words or {WIDTH} columns, or a bare opening:",
            *beyond,
            sep="\n- ",
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
