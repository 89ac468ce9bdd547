"""What is written of a judged record."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from oea_server.lab.qualify import compact, judge, pages, words
from tests.unit.qualify.simulated import Record, record

NASTY = '=1+1 <script>alert("x")</script> | `a`\n# b'


@pytest.fixture
def made() -> Record:
    found = record(120, candidates=("k0=1", "k0=3,share=0.2"), discordance=0.2)
    for answer in found["answers"]:
        answer["text"] = NASTY
        answer["group"] = f"<i>{answer['group']}</i>|x"
    return judge.judged(found)


def test_four_files_of_one_record(made: Record, tmp_path: Path) -> None:
    paths = pages.write(made, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [
        "qualify.json",
        "qualify.csv",
        "qualify.md",
        "qualify.html",
    ]
    kept = compact.read(paths[0])
    assert judge.judged(kept)["verdicts"] == made["verdicts"]
    assert {**kept, "answers": ()} == {**made, "form": compact.FORM, "answers": ()}


def test_the_sheet_has_a_line_an_answer(made: Record, tmp_path: Path) -> None:
    _, sheet, *_ = pages.write(made, tmp_path)
    assert len(sheet.read_text().splitlines()) == 1 + len(made["answers"])
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["correct"] for row in rows] == [
        str(answer["correct"]) for answer in made["answers"]
    ]
    assert all(json.loads(row["text"]) == NASTY for row in rows)
    assert not any(value.startswith(("=", "+", "-", "@")) for row in rows for value in row.values())


def test_every_page_says_verdict_price_and_what_was_not_tested(
    made: Record, tmp_path: Path
) -> None:
    *_, markdown, html = pages.write(made, tmp_path)
    for text in (markdown.read_text(), html.read_text()):
        for name in ("k0=1", "k0=3,share=0.2"):
            assert words.headline(name, made["verdicts"][name]) in text
        assert "50% fewer experts read in a decode step" in text
        assert "20% less time per token" in text
        assert "What was not tested" in text
        assert "Answers beyond 32 tokens" in text
        assert "qualify the one that you pick again" in text.lower()
        assert made["command"] in text


def test_tables_keep_their_columns(made: Record) -> None:
    rows = [line for line in pages.markdown(made).splitlines() if line.startswith("|")]
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in rows]
    starts = [i for i, line in enumerate(rows) if set(line) <= set("|-:")]
    for start, end in zip(starts, [*(each - 1 for each in starts[1:]), len(rows)], strict=True):
        assert set(cells[start - 1 : end]) == {cells[start]}


class Tags(HTMLParser):
    """What a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.links += [
            f"{tag} {name}"
            for name, _ in attrs
            if name in ("src", "href", "srcset", "action", "onclick")
        ]
        if tag not in ("meta", "line", "rect", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "line", "rect", "circle"):
            assert self.open.pop() == tag


def test_the_page_needs_nothing_and_runs_nothing(made: Record, tmp_path: Path) -> None:
    page = pages.write(made, tmp_path)[-1].read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.links == []
    assert tags.seen.isdisjoint({"script", "img", "link", "iframe", "i", "b"})
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_a_run_that_shows_nothing_has_pages_too(tmp_path: Path) -> None:
    bare = record(20)
    bare["blocks"] = []
    for answer in bare["answers"]:
        answer["correct"] = None
    for text in (path.read_text() for path in pages.write(judge.judged(bare), tmp_path)[2:]):
        assert "nothing can be concluded from this run" in text
        assert "none of the 20 pairs of answers could be checked" in text
        assert "nan" not in text.lower().replace("maintenance", "")


def test_two_rounds_that_differ_tell_no_speed() -> None:
    """As one real run had it: vanilla beside itself, the first block on a busy machine."""
    made = record(200, discordance=0.0)
    for block, tpot, read in zip(
        made["blocks"], (0.050, 0.016, 0.030, 0.0144), (29.0, 31.9, 29.8, 31.9), strict=True
    ):
        block["tpot"], block["unique"] = tpot, read
    text = pages.markdown(judge.judged(made))
    assert "60% less time per token (-68% to -52%, not told from none)" in text
    assert "a difference in speed is not its doing" in text


def test_a_loss_is_said_to_be_one(tmp_path: Path) -> None:
    slow = record(400, difference=-0.2, discordance=0.25)
    for block in slow["blocks"]:
        block["tpot"], block["unique"] = 0.05, 72.0
    text = pages.markdown(judge.judged(slow))
    assert "is shown to be worse than vanilla" in text
    assert (
        "as many experts read as vanilla; as much time per token as vanilla; 20% more tokens per"
        " second" in text
    )
