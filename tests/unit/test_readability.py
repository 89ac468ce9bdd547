"""The count of long sentences, wide lines and bare openings, in pages and in docstrings."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from oea_server.lab.reference import docstrings, readability, sentences
from oea_server.lab.reference.page import ROOT

LONG = " ".join(["so"] * 26) + "."
GOOD = "# A page\n\nA router chooses experts. A step reads them.\n"


def test_sentences_are_counted_without_code_tables_and_links() -> None:
    page = "# Title of it\n\nOne two [three](a/b.md) four.\nFive six. **Seven!** Eight.\n"
    page += "\n    code that is long\n\n| a | table |\n\n- An item\n- Another\n\n  | a | table |\n"
    found = ["One two three four.", "Five six.", "**Seven!", "Eight.", "An item", "Another"]
    assert sentences.of_page(page) == found


def test_a_page_within_the_limits_has_no_fault() -> None:
    assert readability.of_page("page.md", GOOD)[1] == []


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        (LONG, f"26 words: {LONG}"),
        (f"- An item.\n- {LONG}", f"26 words: {LONG}"),
        ("It is fast.", 'opens with "It": It is fast.'),
        ("> A quote. **These** are bare.", 'opens with "These": **These** are bare.'),
        ("x" * 101, f"101 columns: {'x' * 101}"),
    ],
)
def test_a_fault_that_is_planted_in_a_page_is_found(planted: str, fault: str) -> None:
    line, beyond = readability.of_page("page.md", f"{GOOD}\n{planted}\n")
    assert beyond == [fault]
    assert line != readability.of_page("page.md", GOOD)[0]


@pytest.mark.parametrize("subject", ["It", "This", "They", "These", "That"])
def test_each_bare_opening_is_counted(subject: str) -> None:
    assert sentences.count([f"{subject} is so.", "Italics are not.", "A page."]).opens == 1


MODULE = '''"""A module."""

KNOB = 1
"""{knob}"""
"""no docstring, as nothing stands before it."""


class Step:
    """{cls}

    This is a second paragraph, which is not asked for.
    """

    def run(self) -> None:
        """{method} This second sentence is not asked for."""
        if KNOB:
            """no docstring."""
'''


@pytest.mark.parametrize("where", ["knob", "cls", "method"])
@pytest.mark.parametrize(
    ("planted", "fault"),
    [(LONG, f"m.py: 26 words: {LONG}"), ("They run.", 'm.py: opens with "They": They run.')],
)
def test_a_first_sentence_that_is_planted_in_a_docstring_is_found(
    where: str, planted: str, fault: str
) -> None:
    good = dict.fromkeys(("knob", "cls", "method"), "A thing.")
    line, beyond = readability.of_room("room", {"m.py": MODULE.format(**good)})
    assert (beyond, line.split()[1]) == ([], "4")
    assert (
        fault in readability.of_room("room", {"m.py": MODULE.format(**good | {where: planted})})[1]
    )


def test_a_wide_line_of_a_docstring_is_found() -> None:
    source = f'"""A module.\n\n{"x" * 101}\n"""\nVALUE = "{"x" * 101}"\n'
    assert docstrings.wide(source, 100) == 1
    assert readability.of_room("room", {"m.py": source})[1] == ["m.py: 1 lines above 100 columns"]


def test_lint_ends_with_1_where_something_is_beyond_the_limits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.md").write_text(GOOD)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/record.md").write_text(LONG)
    monkeypatch.setattr(readability, "ROOT", tmp_path)
    monkeypatch.setattr(docstrings, "rooms", dict)
    readability.main()
    (tmp_path / "other.md").write_text(LONG)
    with pytest.raises(SystemExit, match="1"):
        readability.main()
    assert f"- other.md: 26 words: {LONG}" in capsys.readouterr().out


def tracked() -> Iterator[Path]:
    """Pages that git knows, but for records."""
    listed = ["git", "ls-files", "*.md"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in done.stdout.splitlines():
        if not {*Path(name).parts} & {*readability.NO_PAGES}:
            yield ROOT / name


def test_no_page_of_the_repository_is_left_out() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    assert set(tracked()) <= set(readability.pages())
