"""Characters that no line of a log may have."""

from __future__ import annotations

import unicodedata

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def hidden(text: str) -> list[str]:
    """Those in a text that end a line, steer a terminal, turn the direction of writing, or are no
    text."""
    return [f"U+{ord(each):04X}" for each in text if unicodedata.category(each) in HIDDEN]
