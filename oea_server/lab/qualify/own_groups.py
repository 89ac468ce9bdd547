"""What models as small as the demo ones can be asked: to copy, to close, to go on with a page. One
function a group.

All prompts are raw text to go on with, without a chat: the models learned chats as a question about
a manual page. An answer ends with its line, and is three tokens long or more: the first token comes
from prefill, which no router of ours touches."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Task = dict[str, Any]
"""A line of a task file, but for its group."""

LEAST_TOKENS = 3
STOP = ["\n"]
LINE = 16
"""Tokens: more than any answer has that is one short line."""
WORD = re.compile(r"(?<![\w])[a-z]{5,12}(?![\w])")
LONG_WORD = re.compile(r"(?<=\S )[a-z]{7,}(?=[\s.,;:)])")
AFTER_SPACE = re.compile(r"(?<=\S )[A-Za-z_]{4,}(?=[\s.,;:)])")
BEFORE = 600
"""Characters of a page before what is asked."""
CLOSES = {"(": ")", "[": "]", "{": "}"}
NO_BRACKETS = r"[^()\[\]{}\n]*"


class Text(NamedTuple):
    """What tasks are made from."""

    pages: Sequence[str]
    """Texts that the model was not trained on."""
    words: Sequence[str]
    """Words of the pages, lower case, of `LEAST_TOKENS` tokens or more after a space."""
    tokens: Callable[[str], list[str]]
    """A text cut into the model's tokens, each as the text that it stands for."""

    def draw(self, dice: random.Random, number: int) -> list[str]:
        """Different words."""
        return dice.sample(self.words, number)


def repeat(text: Text, dice: random.Random) -> Task:
    """Five lines of one word; the sixth."""
    (word,) = text.draw(dice, 1)
    return exact(f"{word}\n" * 5, word)


def copy_list(text: Text, dice: random.Random) -> Task:
    """A list of four words, three times over; it is broken off, and goes on."""
    words = text.draw(dice, 4)
    return exact("".join(f"{word}\n" for word in words) * 3 + f"{words[0]}\n{words[1]}\n", words[2])


def copy_pairs(text: Text, dice: random.Random) -> Task:
    """Assignments, three times over; the value of a name."""
    names, values = text.draw(dice, 4), text.draw(dice, 4)
    lines = [f"{name} = {value}\n" for name, value in zip(names, values, strict=True)]
    return exact("".join(lines) * 3 + f"{lines[0]}{names[1]} =", values[1])


def copy_sentence(text: Text, dice: random.Random) -> Task:
    """A line of a page, three times over; the fourth."""
    lines = [
        line
        for line in dice.choice(text.pages).split("\n")
        if re.fullmatch(r"[A-Z][A-Za-z ,.]{20,44}", line)
    ]
    if not lines:
        return copy_sentence(text, dice)
    line = dice.choice(lines)
    return exact(f"{line}\n" * 3, line, tokens=32)


def close_tag(text: Text, dice: random.Random) -> Task:
    """An element's closing tag, after one that is closed."""
    outer, other, inside, more = text.draw(dice, 4)
    return exact(f"<{other}>{inside}</{other}>\n<{outer}>{more}</", f"{outer}>")


def brackets(text: Text, dice: random.Random) -> Task:
    """Two brackets are open: what closes them, in their order."""
    return _closed("", *_opened(text, dice, 2))


def brackets_shown(text: Text, dice: random.Random) -> Task:
    """Three are, below a line that closes the same three."""
    line, closing = _opened(text, dice, 3)
    return _closed(
        f"{line}{closing}\n", *_opened(text, dice, 3, "".join(c for c in line if c in CLOSES))
    )


def manual_name(text: Text, dice: random.Random) -> Task:
    """A page's name, again where its synopsis begins."""
    name, does, what = text.draw(dice, 3)
    return begins(f"NAME\n{name} - {does} the {what}\n\nSYNOPSIS\n", name, tokens=8)


def assign(text: Text, dice: random.Random) -> Task:
    """A method's argument, where it is kept."""
    (name,) = text.draw(dice, 1)
    return begins(f"def __init__(self, {name}):\n        self.{name} =", f" {name}", tokens=8)


def page_phrase(text: Text, dice: random.Random) -> Task:
    """The next word of a page, which has had it after the same word before."""

    def again(before: str, word: str) -> bool:
        last = before.split()[-1:]
        return (
            bool(last)
            and re.search(re.escape(last[0]) + r"\s+" + re.escape(word) + r"\b", before) is not None
        )

    return _next_word(text, dice, again)


def page_word(text: Text, dice: random.Random) -> Task:
    """The next word of a page."""
    return _next_word(text, dice, lambda before, word: True)


def page_finish(text: Text, dice: random.Random) -> Task:
    """The rest of a word on a page, after its first token."""
    while True:
        before, word = _cut(text, dice, LONG_WORD)
        tokens = text.tokens(f" {word}")
        head = tokens[0].strip()
        if len(tokens) > LEAST_TOKENS and head and word.startswith(head):
            return begins(before + head, word[len(head) :], tokens=len(tokens) + 1)


def count_list(text: Text, dice: random.Random) -> Task:
    """A numbered list of one word; its next line."""
    (word,) = text.draw(dice, 1)
    number = dice.randint(3, 9)
    return exact("".join(f"{i}. {word}\n" for i in range(1, number)), f"{number}. {word}")


def count_lines(text: Text, dice: random.Random) -> Task:
    """Six lines of numbers, each one more; the seventh."""
    first = dice.randint(100, 900)
    return exact("".join(f"{i}\n" for i in range(first, first + 6)), str(first + 6))


def exact(prompt: str, answer: str, tokens: int = LINE) -> Task:
    """The answer is a whole line."""
    return {
        "prompt": prompt,
        "answer": answer,
        "check": "exact",
        "max_tokens": tokens,
        "stop": STOP,
    }


def begins(prompt: str, answer: str, tokens: int) -> Task:
    """The answer is how the line begins, up to the end of its last word."""
    expression = rf"^{re.escape(answer)}\b"
    return {
        "prompt": prompt,
        "answer": expression,
        "check": "regex",
        "max_tokens": tokens,
        "stop": STOP,
    }


def _next_word(text: Text, dice: random.Random, suits: Callable[[str, str], bool]) -> Task:
    while True:
        before, word = _cut(text, dice, AFTER_SPACE)
        tokens = len(text.tokens(f" {word}"))
        if tokens >= LEAST_TOKENS and suits(before, word):
            return begins(before.removesuffix(" "), f" {word}", tokens=tokens + 1)


def _cut(text: Text, dice: random.Random, what: re.Pattern[str]) -> tuple[str, str]:
    """A word of a page and what stands before it."""
    page = dice.choice(text.pages)
    found = dice.choice([each for each in what.finditer(page) if each.start() > BEFORE])
    return page[found.start() - BEFORE : found.start()], found.group()


def _opened(text: Text, dice: random.Random, depth: int, brackets: str = "") -> tuple[str, str]:
    """A line of code that ends within brackets, and what closes them."""
    name, *words = text.draw(dice, depth + 2)
    brackets = brackets or "".join(dice.choices(list(CLOSES), k=depth))
    inside = "".join(f"{word}{bracket}" for word, bracket in zip(words, brackets, strict=False))
    return f"    {name} = {inside}{words[-1]}", "".join(CLOSES[each] for each in reversed(brackets))


def _closed(before: str, line: str, closing: str) -> Task:
    expression = (
        "^" + NO_BRACKETS + "".join(re.escape(each) + NO_BRACKETS for each in closing) + "$"
    )
    return {
        "prompt": before + line,
        "answer": expression,
        "check": "regex",
        "max_tokens": LINE,
        "stop": STOP,
    }


GROUPS: dict[str, Callable[[Text, random.Random], Task]] = {
    "repeat": repeat,
    "copy-list": copy_list,
    "copy-pairs": copy_pairs,
    "copy-sentence": copy_sentence,
    "close-tag": close_tag,
    "brackets": brackets,
    "brackets-shown": brackets_shown,
    "manual-name": manual_name,
    "assign": assign,
    "page-phrase": page_phrase,
    "page-word": page_word,
    "page-finish": page_finish,
    "count-list": count_list,
    "count-lines": count_lines,
}
