"""Text from outside as a part of one line: for logs, and for answers that are one line."""

from __future__ import annotations

import unicodedata

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories that end a line, steer a terminal, turn the direction of writing, or are no text."""

CUT = "…"

LINE = 600
"""Characters of a line about a change of knobs: a value can have thousands."""


def oneline(text: str, longest: int = 200) -> str:
    """Text with every control character escaped (``\\n``, ``\\x1b``, ``\\u2028``), cut to `longest`
    characters.

    A backslash stays as it is, so that a text may pass through here twice.
    """
    kept = "".join(map(_escaped, text[: longest + 1]))
    return kept if len(kept) <= longest else kept[: longest - len(CUT)] + CUT


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in HIDDEN:
        return character
    return character.encode("unicode_escape").decode("ascii")
