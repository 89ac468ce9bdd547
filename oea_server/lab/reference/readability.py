"""The command `python -m oea_server.lab.reference.readability`: how long sentences and lines
are."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

from oea_server.lab.reference.page import DOCS, WIDTH

ROOT = DOCS.parent
MOST_WORDS = 25
HELD = ("README.md", "CONTRIBUTING.md", "docs/modules.md", *(f"docs/{name}.md" for name in (
    "architecture", "controller", "demo-models", "dp-attention", "expert-parallel", "knobs",
    "metrics", "qualify-statistics", "quality", "quality-results", "serving", "speculation",
    "steering", "tiers", "troubleshooting", "what-was-run", "wishes",
)))  # fmt: skip
"""Pages that keep the limits; the others are counted."""
NO_PROSE = re.compile(r"^(    |\||#|<!--|!\[|```)")


class Count(NamedTuple):
    """Of one page."""

    sentences: int
    words: float
    """Of a sentence, the mean."""
    longest: float
    """Words that nine sentences of ten do not exceed."""
    wide: int
    """Lines of prose above the width."""


def count(text: str) -> Count:
    """Of a page as it is written."""
    lengths = [len(sentence.split()) for sentence in sentences(text)]
    ninth = quantiles(lengths, n=10)[-1] if len(lengths) > 1 else sum(lengths)
    wide = sum(len(line) > WIDTH for line in prose(text))
    return Count(len(lengths), sum(lengths) / max(1, len(lengths)), ninth, wide)


def prose(text: str) -> Iterator[str]:
    """Lines that are neither code, nor tables, headings, pictures and comments."""
    inside = False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = not inside
        if not inside and not NO_PROSE.match(line):
            yield line


def sentences(text: str) -> list[str]:
    """Those of a page's prose. An item of a list is a sentence of its own."""
    joined = re.sub(r"\n(?=[ >]*(- |\d+\. |$))", "\n\n", "\n".join(prose(text)))
    joined = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", joined)
    found = []
    for paragraph in joined.split("\n\n"):
        plain = re.sub(r"^(- |\d+\. )", "", " ".join(paragraph.replace("\n>", "\n").split()))
        found += [part for part in re.split(r"(?<=[.!?])\s+", plain) if re.search(r"\w", part)]
    return found


def pages() -> list[Path]:
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted(DOCS.glob("*.md")),
        ROOT / "deploy/runbook.md",
    ]


def main() -> None:
    """Print a line for each page; exit with 1 where a page that is held to the limits is above
    them."""
    broken = []
    print(f"{'page':32} sentences  words  p90  lines above {WIDTH}")
    for path in pages():
        name, found = str(path.relative_to(ROOT)), count(path.read_text(encoding="utf-8"))
        print(
            f"{name:32} {found.sentences:9} {found.words:6.1f} {found.longest:4.0f} {found.wide:8}"
        )
        if name in HELD and (found.words > MOST_WORDS or found.longest > MOST_WORDS or found.wide):
            broken.append(name)
    if broken:
        print(
            f"above {MOST_WORDS} words a sentence (nine of ten), or lines above {WIDTH}:"
            f" {', '.join(broken)}"
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
