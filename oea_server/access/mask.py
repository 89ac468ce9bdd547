"""Keys taken out of what others may read: answers of the server, lines of its log."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Sequence
from typing import Any

MASK = "***"
LEAST = 6
"""Characters from which on a key is masked inside other text too: shorter ones are parts of
words."""

FIELDS = ("api_key", "admin_api_key", "ssl_keyfile_password")
"""What SGLang's `ServerArgs` calls its secrets."""


def masked(value: Any, keys: Sequence[str]) -> Any:
    """A JSON value without any of the keys, wherever in it they are."""
    if isinstance(value, dict):
        return {
            name: MASK if name in FIELDS and each else masked(each, keys)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [masked(each, keys) for each in value]
    if isinstance(value, str):
        return MASK if value in keys else masked_text(value, keys)
    return value


def masked_text(text: str, keys: Sequence[str]) -> str:
    """A text, such as a command line, without any of the keys."""
    for key in keys:
        if key not in text:
            continue
        text = text.replace(key, MASK) if len(key) >= LEAST else _without_word(text, key)
    return text


def _without_word(text: str, key: str) -> str:
    """A command line without the words, and the values of ``--flag=value``, that are the key."""
    try:
        words = shlex.split(text)
    except ValueError:  # no command line
        return text.replace(repr(key), repr(MASK))
    kept = [MASK if word == key else word for word in words]
    kept = [f"{word.split('=')[0]}={MASK}" if word.endswith(f"={key}") else word for word in kept]
    return text.replace(repr(key), repr(MASK)) if kept == words else shlex.join(kept)


def mask_log(keys: Sequence[str]) -> None:
    """Mask the keys in every record that any logger of this process makes from now on."""
    if not keys:
        return
    make = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        if log_line(text := record.getMessage(), keys) == text:
            return record
        if isinstance(record.args, tuple) and any(isinstance(each, str) for each in record.args):
            # uvicorn's formatter wants its arguments one by one
            record.args = tuple(
                log_line(each, keys) if isinstance(each, str) else each for each in record.args
            )
        if (text := log_line(record.getMessage(), keys)) != record.getMessage():
            record.msg, record.args = text, ()
        return record

    logging.setLogRecordFactory(factory)


def log_line(text: str, keys: Sequence[str]) -> str:
    """A line of a log without any of the keys: bare, and as Python and JSON write them."""
    for key in keys:
        if len(key) >= LEAST:
            for written in (key, repr(key)[1:-1], json.dumps(key)[1:-1]):
                text = text.replace(written, MASK)
        else:
            text = text.replace(repr(key), repr(MASK)).replace(json.dumps(key), json.dumps(MASK))
    return text
