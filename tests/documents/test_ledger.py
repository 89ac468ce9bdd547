"""Every command of every document is run by a test, or marked as not run with the reason."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from oea_server.lab.recipes.commands import CONFIGS
from tests.documents import checkout, judge, ledger, pages
from tests.documents.ledger import CI, JUDGED, SERVED, WAYS
from tests.documents.pages import ROOT, Command

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CI_RUNS = (ROOT / ".ci/run").read_text(encoding="utf-8")
IN_CI = {"setup", *re.findall(r"make (\w+)", CI_RUNS)}
EVERY = ledger.every()
MARKED = [command for command in EVERY if command.reason is not None]


def test_every_command_is_run_or_marked() -> None:
    neither = [str(each) for each in EVERY if ledger.way(each) is None and each.reason is None]
    assert neither == [], (
        "put it into tests/documents/ledger.py, or <!-- not run: REASON --> above it"
    )


def test_what_is_run_is_not_marked() -> None:
    both = [str(each) for each in MARKED if ledger.way(each) is not None]
    assert both == [], "a test runs it: take the mark away"


def test_every_line_of_the_ledger_runs_something() -> None:
    used = {ledger.way(each) for each in EVERY}
    assert [each.pattern for each in WAYS if each not in used] == []


@pytest.mark.parametrize("how", [each for each in WAYS if "::" in each.by], ids=lambda how: how.by)
def test_a_named_test_is_there_and_holds_the_command(how: ledger.Way) -> None:
    file, _, name = how.by.partition("::")
    source = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"^(def|class) {name}\b", source, re.MULTILINE), how.by
    assert how.holds
    assert how.holds in source
    theirs = [each.text for each in EVERY if ledger.way(each) is how]
    assert any(how.holds in each for each in theirs)


@pytest.mark.parametrize(
    "command", [each for each in EVERY if (w := ledger.way(each)) and w.by == CI], ids=str
)
def test_ci_runs_it(command: Command) -> None:
    first, *words = command.text.split()
    if first == "make":
        parts = re.findall(r"^PARTS := (.+)$", MAKEFILE, re.MULTILINE)[0].split()
        assert set(words) <= IN_CI | set(parts) | OF_PARTS
        return
    for each in words[: words.index("-k") if "-k" in words else None]:
        assert list(ROOT.glob(each)), each
        assert "/".join(each.split("/")[:2]) in MAKEFILE, each
    if "-k" in words:
        sources = [path.read_text() for path in (ROOT / words[0]).glob("*.py")]
        assert any(f"def test_{words[-1]}" in each for each in sources)


OF_PARTS = {"check", "test-nightly"}
"""Targets whose every line is one of `make test`, or `make test` with the marker taken away."""


@pytest.mark.parametrize("page", pages.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    """`make lint`, `oea-server config get`: names that nobody is asked to type."""
    targets = set(re.findall(r"^([\w.-]+):", MAKEFILE, re.MULTILINE))
    for name in pages.named(page):
        program, *words = name.split()
        if program == "make":
            assert set(words) <= targets, name
        else:
            for last in words[-1].split("|"):
                judge.parsed(judge.apps()[program], [*words[:-1], last, "--help"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout.laid_out(tmp_path_factory.mktemp("judged"))


@pytest.mark.parametrize("command", MARKED, ids=str)
def test_what_is_not_run_is_well_formed(command: Command, folder: Path) -> None:
    unasked = judge.judge(command, folder)
    if unasked:
        pytest.skip(f"nobody here to ask about {', '.join(unasked)}")


def test_a_pages_mark_is_of_commands_that_are_there() -> None:
    for page in pages.pages():
        texts = [command.text for command in pages.commands(page)]
        for mark in pages.MARK.finditer(page.read_text(encoding="utf-8")):
            for begins in mark[2].split(",") if mark[1] == pages.ON_PAGE else ():
                assert any(each.startswith(begins.strip()) for each in texts), (page, begins)


def test_what_is_not_run_says_why_in_words() -> None:
    assert [str(each) for each in MARKED if len(str(each.reason).split()) < 3] == []


def test_the_count_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    how = Counter(
        "not run"
        if (found := ledger.way(each)) is None
        else "named"
        if "::" in found.by
        else found.by
        for each in EVERY
    )
    with capsys.disabled():
        print(f"\n{len(EVERY)} commands in {len(pages.pages())} documents: {dict(how)}")
    assert sum(how.values()) == len(EVERY) > 100
    assert how.keys() >= {*SERVED, JUDGED, CI, "not run"}
    assert CONFIGS.is_dir()
