"""`docs/troubleshooting.md`: every refusal in a row of one of its tables. Those of SGLang's options
are made from their table; the others are written by hand, and held to the source by a test."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from oea_server.engine.options import CONFLICTS
from oea_server.lab.reference.page import DOCS
from oea_server.lab.reference.source_texts import HOLE, Text

PAGE = DOCS / "troubleshooting.md"
TELLING = 16
"""Letters from which on a quoted part of a line is enough to find it; shorter, it is all of it."""
EDGES = " :;,.="


def entries() -> list[str]:
    """The table of SGLang's options that are refused."""
    lines = ["| the line starts with | it means | do |", "|---|---|---|"]
    lines += [f"| `{each.flag}` | {each.why} | {_code(each.instead)} |" for each in CONFLICTS]
    return [*lines, ""]


def _code(text: str) -> str:
    """A text with flags as code."""
    return re.sub(r"--oea-[a-z-]+ \w+", r"`\g<0>`", text)


def quoted(page: str) -> list[str]:
    """What the first cells of the tables' rows quote of lines."""
    tables = re.findall(r"^\| the \w+ says \|.*\n\|---.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    cells = [row.split(" | ")[0] for table in tables for row in table.splitlines()]
    return [fragment for cell in cells for fragment in re.findall(r"`([^`]+)`", cell)]


def quotes(fragment: str, text: str) -> bool:
    """Whether a fragment is of this text: its parts are in it in their order, or all of it."""
    parts = constants(fragment)
    if sum(map(len, parts)) < TELLING:
        return parts == constants(text)
    at = 0
    for part in parts:
        at = text.find(part, at) + len(part)
        if at < len(part):
            return False
    return True


@cache
def constants(text: str) -> list[str]:
    """A text without its values."""
    return [part for each in text.split(HOLE) if (part := each.strip(EDGES))]


def of_options(text: str) -> bool:
    """Whether a text is of the table of options, which the page has whole."""
    like = ".*".join(map(re.escape, text.split(HOLE)))
    said = (part for each in CONFLICTS for part in (each.why, each.instead))
    return any(re.fullmatch(like, each) for each in said)


def missing(texts: Iterable[Text], fragments: list[str]) -> list[Text]:
    """The texts that no row quotes."""
    return [
        each
        for each in texts
        if not of_options(each.text) and not any(quotes(one, each.text) for one in fragments)
    ]


def stale(texts: list[Text], fragments: Iterable[str]) -> list[str]:
    """The fragments that are of no text."""
    return [one for one in fragments if not any(quotes(one, each.text) for each in texts)]
