"""A page with a list in it that is made: what stands around the list is written by hand, and
kept."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "oea_server"
COMMAND = "python -m oea_server.lab.reference"
BEGIN, END = f"<!-- made by {COMMAND} -->", "<!-- made until here -->"
WIDTH = 100


def with_list(page: str, entries: Iterable[str]) -> str:
    """The page with these entries in place of those that it has.

    Raises:
        ValueError: it does not say where they belong.
    """
    if BEGIN not in page or END not in page:
        raise ValueError(f"no {BEGIN} and {END} around a list")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n" + "\n".join(entries) + f"\n{END}{after}"


def entry(title: str, facts: str, text: str) -> str:
    """A heading that can be linked to, what is known of it in a line, and what it is."""
    return f"### {title}\n\n{wrapped(facts)}\n\n{wrapped(text)}\n"


def wrapped(text: str) -> str:
    return item(text, mark="")


def item(text: str, mark: str = "- ") -> str:
    """One item of a list."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_long_words=False,
        break_on_hyphens=False,
    )
