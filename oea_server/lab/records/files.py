"""A record's file: JSON on one line, each float with the digits that a measurement has."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from oea_server.lab.records.record import Record

DIGITS = 7
"""Digits that count of a float; no page shows more than five."""
DECIMALS = 5
"""Of a float at least, however large: seconds and megabytes of a long run."""


def write(path: Path, record: Record) -> Record:
    """Keep a record as `path`, whose folder is made where it is missing.

    Returns:
        What a reader of the file gets: what is shown of a record is what was kept of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line(rounded(record)), encoding="utf-8")
    return read(path)


def read(path: Path) -> Record:
    """A record's content."""
    found: Record = json.loads(path.read_text(encoding="utf-8"))
    return found


def line(content: Any) -> str:
    """JSON without spaces, and the end of the line."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"


def rounded(content: Any) -> Any:
    """The same with its floats rounded, and lists for tuples."""
    match content:
        case dict():
            return {name: rounded(each) for name, each in content.items()}
        case list() | tuple():
            return [rounded(each) for each in content]
        case float() if content and math.isfinite(content):
            places = DIGITS - 1 - math.floor(math.log10(abs(content)))
            return round(float(content), max(places, DECIMALS))
    return content


def digest(record: Record) -> str:
    """What tells a record from others: 16 digits of the sha256 of the file that `write` makes."""
    return hashlib.sha256(line(rounded(record)).encode()).hexdigest()[:16]
