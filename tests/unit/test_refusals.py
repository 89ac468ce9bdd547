"""docs/troubleshooting.md has every refusal that the source can print, and no other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from textwrap import dedent

import pytest

from oea_server.engine import bypasses
from oea_server.lab.reference import refusals, troubleshooting
from oea_server.lab.reference.page import ROOT
from oea_server.lab.reference.source_texts import Text

EVERY = refusals.every_text(ROOT / "oea_server")
TEXTS = refusals.told(EVERY)
FRAGMENTS = troubleshooting.quoted(troubleshooting.PAGE.read_text(encoding="utf-8"))


def listed(texts: Iterable[Text]) -> str:
    return "\n".join(f"{each.module}:{each.line} {each.text}" for each in texts)


def test_every_refusal_has_a_row() -> None:
    missing = troubleshooting.missing(TEXTS, FRAGMENTS)
    assert not missing, f"no row of {troubleshooting.PAGE.name} quotes these:\n{listed(missing)}"


def test_every_row_has_a_refusal() -> None:
    stale = troubleshooting.stale(TEXTS, FRAGMENTS)
    assert not stale, f"no refusal says what these quote: {stale}"


def test_every_row_says_what_it_means_and_what_to_do() -> None:
    page = troubleshooting.PAGE.read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    wide = [row for row in rows if len(row) != 2]  # but for the table of beginnings
    assert {len(row) for row in wide} == {3}
    assert [row[0] for row in wide if not all(cell.strip(" |") for cell in row)] == []


def test_every_reason_of_a_bypass_has_a_row() -> None:
    page = troubleshooting.PAGE.read_text(encoding="utf-8")
    assert [each for each in bypasses.BYPASSES if f'{{reason="{each}"}}' not in page] == []


def test_what_is_left_out_is_there() -> None:
    texts, modules = {each.text for each in EVERY}, {each.module for each in EVERY}
    assert {part for part in refusals.PARTS if part not in texts} == set()
    assert {
        name for name in refusals.APART if not any(each.startswith(name) for each in modules)
    } == set()


def test_a_new_refusal_is_missed() -> None:
    new = Text("k0=… tastes of fish; take another", "oea_server.routing.policy", 1)
    assert troubleshooting.missing([*TEXTS, new], FRAGMENTS) == [new]
    assert troubleshooting.stale(TEXTS, [*FRAGMENTS, "… tastes of fish", "is"]) == [
        "… tastes of fish",
        "is",
    ]


def test_a_short_quotation_is_all_that_a_line_says() -> None:
    assert troubleshooting.quotes("… is outside …", "…=… is outside …")
    assert not troubleshooting.quotes("… is outside …", "…: token id … is outside 0..…")
    assert troubleshooting.quotes("token id … is outside 0..…", "…: token id … is outside 0..…")


FORMS = {
    "made elsewhere": "raise others.made(name)",
    "raised": 'raise ValueError(f"{name}={value} is too much")',
    "of a constant": 'raise ValueError(f"{LIMIT} is too much")',
    "of another module": 'raise ValueError(f"the file {others.WHERE} is too much")',
    "what a function says": "raise ValueError(others.said_of(name))",
    "kept in a name": 'line = "so many are too much"\n    raise ValueError(line)',
    "gathered": 'found = []\n    found.append("so many are too much")\n    others.end(found)',
    "handed to what prints": 'others.end("so many are too much")',
    "handed on, to be called": "raise ValueError(others.ask(others.said_of))",
    "numbered": (
        'raise ValueError([f"{i}{line}" for i, line in enumerate(["so many are too much"])])'
    ),
    "a table's": "raise ValueError(others.TABLE[name])",
    "an object's": "raise ValueError(others.Row('so many are too much', 1).why)",
    "logged": 'logger.warning("OEA: %s is too much", name)',
    "answered": 'return {"error": "so many are too much"}',
    "a programming error": 'raise AttributeError("so many are too much")',
}
OTHERS = """
    import sys

    WHERE = "of keys"
    TABLE = {"a": "so many are too much"}

    class Row:
        why: str
        many: int

    def said_of(name):
        return None if name else "so many are too much"

    def made(name):
        return KeyError("so many are too much")

    def ask(question):
        return question("")

    def end(problem):
        print(problem, file=sys.stderr)
"""


@pytest.mark.parametrize("form", FORMS)
def test_a_refusal_is_found_in_every_form(form: str, tmp_path: Path) -> None:
    package = tmp_path / "some"
    package.mkdir()
    (package / "others.py").write_text(dedent(OTHERS))
    head = 'from some import others\n\nLIMIT = "a limit of 3"\n\n\ndef check(name, value):\n    '
    (package / "one.py").write_text(f"{head}{FORMS[form]}\n")
    said = {
        "raised": ["…=… is too much"],
        "of a constant": ["a limit of 3 is too much"],
        "of another module": ["the file of keys is too much"],
        "logged": ["OEA: … is too much"],
        "a programming error": [],
    }.get(form, ["so many are too much"])
    found = {each.text for each in refusals.every_text(package)}
    assert found == set(said)
