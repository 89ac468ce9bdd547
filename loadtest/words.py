"""Text for prompts: words of Python's own reference documentation, which ships with Python."""

from __future__ import annotations

import functools
import random
import re

TOKENS_PER_WORD = 1.70
TOKENS_PER_RARE_WORD = 2.87
"""Of the demo model's tokenizer on this text (measured: see the tests); a real one, of more tokens,
makes fewer."""


@functools.cache
def words() -> tuple[str, ...]:
    """Every word once, in order of the alphabet."""
    from pydoc_data.topics import topics

    found = {word for name in topics for word in re.findall(r"[a-z]{2,12}", topics[name])}
    return tuple(sorted(found))


@functools.cache
def running() -> tuple[str, ...]:
    """The words as they follow each other in the documentation: common ones are common."""
    from pydoc_data.topics import topics

    return tuple(
        word for name in sorted(topics) for word in re.findall(r"[A-Za-z]{2,12}", topics[name])
    )


def text(dice: random.Random, tokens: int) -> str:
    """About `tokens` tokens of text: words from the documentation, from anywhere on. Two draws
    differ within their first words, so that no prompt is found in the server's cache by
    accident."""
    source = running()
    opening = min(3, max(1, round(tokens / TOKENS_PER_RARE_WORD)))
    count = max(0, round((tokens - opening * TOKENS_PER_RARE_WORD) / TOKENS_PER_WORD))
    start = dice.randrange(len(source))
    rest = (source[(start + i) % len(source)] for i in range(count))
    return " ".join([*(dice.choice(words()) for _ in range(opening)), *rest])
