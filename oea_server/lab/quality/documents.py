"""Documents with names, from a file that a user made: whatever is wrong with the file is one
line."""

from __future__ import annotations

import json
from pathlib import Path

from oea_server.oneline import oneline

Document = tuple[str, str]
"""A name and a text."""


def documents(path: Path) -> list[Document]:
    """The documents of a file: JSON lines of names and texts, or one plain text.

    Lines end at a line feed and nowhere else: JSON may hold other separators (U+2028) as they are.
    A document without a name has its line's number.

    Raises:
        ValueError: one line: the file, the line in it, and what is wrong.
    """
    where = oneline(str(path))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{where}: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{where}, line {number}: not UTF-8 (byte 0x{data[error.start]:02x})"
        ) from None
    if not text.strip():
        raise ValueError(f"{where}: is empty")
    if path.suffix.lower() != ".jsonl":
        return [(path.name, text)]
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found.append(document(line, f"line {number}"))
            except ValueError as error:
                raise ValueError(f"{where}, line {number}: {error}") from None
    return found


def document(line: str, unnamed: str) -> Document:
    """One line of JSON.

    Raises:
        ValueError: what is wrong with it.
    """
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number too long, brackets too deep
        raise ValueError(f"not JSON that can be read: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{_kind(content)}, not an object with a text")
    if "text" not in content:
        raise ValueError(f"no text; it has {oneline(', '.join(content)) or 'nothing'}")
    text, name = content["text"], content.get("name")
    if not isinstance(text, str):
        raise ValueError(f"text is {_kind(text)}, not a string")
    if not isinstance(name, str | None):
        raise ValueError(f"name is {_kind(name)}, not a string")
    for what in (text, name or ""):
        if any("\ud800" <= character <= "\udfff" for character in what):
            raise ValueError("half a character (a lone surrogate), which is no text")
    return name or unnamed, text


def _kind(value: object) -> str:
    kinds = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "true or false",
        type(None): "null",
    }
    return kinds.get(type(value), "a number")
