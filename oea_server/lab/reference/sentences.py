"""Sentences of a page or of a docstring, and how readable they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from statistics import quantiles
from typing import NamedTuple

MOST_WORDS = 25
"""Words of a sentence."""
OPENS = re.compile(r"\W*(It|This|They|These|That)\b")
"""Openings of a sentence whose subject stands in another sentence."""
END = re.compile(r"""(?<=[.!?])[*_)"'`]*\s+""")
NO_PROSE = re.compile(r"    | *\||#|<!--|!\[|```")


class Count(NamedTuple):
    """How readable some sentences are."""

    sentences: int
    words: float
    """Words of a sentence, the mean."""
    ninth: float
    """Words that nine sentences of ten do not exceed."""
    longest: int
    """Words of the longest sentence."""
    opens: int
    """Sentences that open with a word of `OPENS`."""


def count(found: Sequence[str]) -> Count:
    """How readable these sentences are; zeros if there are none."""
    lengths = [words(each) for each in found] or [0]
    ninth = quantiles(lengths, n=10)[-1] if len(lengths) > 1 else lengths[0]
    opens = sum(bool(OPENS.match(each)) for each in found)
    return Count(len(found), sum(lengths) / len(lengths), ninth, max(lengths), opens)


def faults(found: Sequence[str]) -> Iterator[str]:
    """Sentences beyond the limits, each with what is wrong."""
    for each in found:
        if words(each) > MOST_WORDS:
            yield f"{words(each)} words: {each}"
        if opening := OPENS.match(each):
            yield f'opens with "{opening[1]}": {each}'


def words(sentence: str) -> int:
    return len(sentence.split())


def split(paragraph: str) -> list[str]:
    """The sentences of a paragraph in one line, without what has no letter."""
    return [part for part in END.split(paragraph) if re.search(r"\w", part)]


def prose(text: str) -> Iterator[str]:
    """Lines that are neither code, nor tables, headings, pictures and comments."""
    inside = False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = not inside
        if not inside and not NO_PROSE.match(line):
            yield line


def of_page(text: str) -> list[str]:
    """Sentences of a page's prose. An item of a list is a sentence of its own."""
    joined = re.sub(r"\n(?=[ >]*(- |\d+\. |$))", "\n\n", "\n".join(prose(text)))
    joined = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", joined)
    found = []
    for paragraph in joined.split("\n\n"):
        plain = " ".join(paragraph.replace("\n>", "\n").split())
        found += split(re.sub(r"^(- |\d+\. )", "", plain))
    return found
