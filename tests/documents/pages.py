"""The commands that the documents hold, found by rule, each with its page, its line and its mark.

A block is what is indented by four spaces after an empty line, or fenced as ``sh``. It holds
commands, unless it begins like data: JSON, YAML, an option alone, a checksum. In the text, a piece
of code is a command where it begins with a program and holds more than names (`NAMES`).

Marks are comments of Markdown, which nobody sees on the page:

- ``<!-- not run: REASON -->`` right above a block: none of its commands is run.
- ``<!-- not run (1, 3): REASON -->``: the first and the third are not.
- ``<!-- not run on this page (kubectl, docker run): REASON -->``: none that begins like that.
- ``<!-- not a command: WHAT -->`` right above a block: output, say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
NOT_OURS_TO_HOLD = ("CHANGELOG.md", "docs/modules.md", "benchmarks/results/", "tests/documents/")
ON_PAGE = "not run on this page"
MARK = re.compile(
    r"^ *<!-- (not run|not run on this page|not a command)(?: \(([^)]*)\))?: (.+?) -->$",
    re.MULTILINE,
)
"""A line of its own."""
DATA = re.compile(r"\{|[\w*-]+: |--|[0-9a-f]{64} ")
"""How the first line of a block begins that holds no commands."""
FENCED = ("sh", "bash")
IN_TEXT = re.compile(
    r"([A-Z_0-9]+=\S+ )?(amtool|bash|curl|docker|docker-compose|git|grep|helm|hf|kubectl|make"
    r"|oea-server|pip|prometheus|promtool|pytest|python3?|sglang|uv|\.venv/bin/\S+) \S"
)
"""How a command in a sentence begins."""
NAMES = re.compile(r"[\w./-]+( [a-z][a-z|-]*){0,2}")
"""A program and two subcommands at most: named in passing, not asked to be typed."""


class Command(NamedTuple):
    """One command of a document."""

    page: str
    line: int
    text: str
    """On one line, without its comment."""
    in_text: bool
    """Whether it stands in a sentence or a table, not in a block."""
    reason: str | None
    """Why it is not run, where its document marks it so."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def pages(root: Path = ROOT) -> list[Path]:
    """All documents but those of results, of docstrings, and the changelog, which tells of what
    was."""
    folders = (".", "docs", "benchmarks", "deploy", "loadtest", "patches", "tests", "oea_server")
    found = {
        page
        for folder in folders
        for page in (root / folder).glob("*.md" if folder == "." else "**/*.md")
    }
    names = {str(page.relative_to(root)): page for page in found}
    return [names[name] for name in sorted(names) if not name.startswith(NOT_OURS_TO_HOLD)]


def commands(page: Path, root: Path = ROOT) -> list[Command]:
    """Those of one document, in its order."""
    return read(page.read_text(encoding="utf-8"), str(page.relative_to(root)))


def read(text: str, page: str) -> list[Command]:
    """Those of a document's text.

    Raises:
        ValueError: a mark stands over no block, or numbers a command that the block has not.
    """
    blocks, prose = split(text)
    found = [*(each for block in blocks for each in block.commands(page)), *in_text(prose, page)]
    whole = [mark for mark in MARK.finditer(text) if mark[1] == ON_PAGE]
    return sorted((of_page(each, whole) for each in found), key=lambda each: each.line)


def of_page(command: Command, marks: list[re.Match[str]]) -> Command:
    """A command with the reason of its page's mark, if it has none of its block's."""
    for mark in marks:
        if command.reason is None and any(
            command.text.startswith(each.strip()) for each in mark[2].split(",")
        ):
            return command._replace(reason=mark[3])
    return command


class Block(NamedTuple):
    """Lines of code, and the marks right above them."""

    lines: list[tuple[int, str]]
    marks: list[re.Match[str]]

    def commands(self, page: str) -> Iterator[Command]:
        whole = list(joined(self.lines))
        if any(mark[1] == "not a command" for mark in self.marks):
            return
        if whole and DATA.match(whole[0][1]):
            whole = []
        reasons: dict[int, str] = {}
        for mark in self.marks:
            numbers = (
                [int(each) for each in mark[2].split(",")] if mark[2] else range(1, 1 + len(whole))
            )
            reasons |= dict.fromkeys(numbers, mark[3])
        if reasons.keys() - set(range(1, 1 + len(whole))) or (self.marks and not whole):
            raise ValueError(f"{page}:{self.lines[0][0]}: a mark numbers no command of this block")
        for number, (line, text) in enumerate(whole, 1):
            yield Command(page, line, text, False, reasons.get(number))


def split(text: str) -> tuple[list[Block], list[tuple[int, str]]]:
    """The blocks of code, and all other lines with their numbers.

    Raises:
        ValueError: a mark stands over no block.
    """
    blocks: list[Block] = []
    prose: list[tuple[int, str]] = []
    marks: list[re.Match[str]] = []
    fence, block = "", list[tuple[int, str]]()
    empty = True
    for number, line in enumerate([*text.splitlines(), ""], 1):
        tick = re.match(r" *```(\w*)", line)
        indented = not fence and line.startswith("    ") and (empty or block)
        if tick and not fence:
            fence = tick[1] or "text"
        elif tick:
            fence = ""
        elif indented or (fence in FENCED):
            block.append((number, line))
            continue
        elif not fence:
            prose.append((number, line))
        if block and fence not in FENCED and (line.strip() or not indented):
            blocks.append(Block(block, marks))
            block, marks = [], []
        empty = not line.strip()
        mark = MARK.search(line) if not fence else None
        if mark and mark[1] != ON_PAGE:
            marks.append(mark)
        elif marks and line.strip() and not tick:
            raise ValueError(f"line {number}: {marks[0][0]} stands over no block")
        if mark:
            empty = True
    return blocks, prose


def joined(lines: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Whole commands: lines that go on are one, comments and empty lines are none."""
    begun, start = "", 0
    for number, line in lines:
        text = uncommented(line).strip()
        if not begun:
            start = number
        begun = f"{begun} {text.removesuffix(chr(92))}".strip()
        if begun and not re.search(r"(\\|\bdo|\||&&)$", text):
            yield start, " ".join(begun.split())
            begun = ""
    if begun:
        yield start, begun


def uncommented(line: str) -> str:
    """A line without the comment at its end; a # within quotes or a word begins none."""
    quote = ""
    for place, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and line[place - 1 : place] in ("", " "):
            return line[:place]
    return line


def in_text(prose: list[tuple[int, str]], page: str) -> Iterator[Command]:
    """The commands in sentences and tables."""
    text = "\n".join(line for _, line in prose)
    numbers = [number for number, _ in prose]
    for found in spans(text):
        if IN_TEXT.match(found[1]) and not NAMES.fullmatch(found[1]):
            yield Command(page, numbers[text.count("\n", 0, found[0])], found[1], True, None)


def named(page: Path) -> set[str]:
    """The commands of our own that a document names without anything to type: `make lint`."""
    _, prose = split(page.read_text(encoding="utf-8"))
    pieces = (piece for _, piece in spans("\n".join(line for _, line in prose)))
    return {
        piece
        for piece in pieces
        if re.match(r"(make|oea-server) ", piece) and NAMES.fullmatch(piece)
    }


def spans(text: str) -> Iterator[tuple[int, str]]:
    """Pieces of code in sentences: where each begins, and what it says; within one paragraph."""
    for found in re.finditer(r"(?<!`)`([^`]+)`(?!`)", text):
        if "\n\n" not in found[1]:
            yield found.start(), " ".join(found[1].split())
