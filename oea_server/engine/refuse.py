"""A refusal: one clear line, and the process ends. SGLang's plug-in loader swallows exceptions, but
no such end."""

from __future__ import annotations

import sys
from typing import NoReturn

VERB = "refusing to start"
PREFIX = f"oea-server: {VERB}: "


def refuse(*problems: str, verb: str = VERB) -> NoReturn:
    """Print each problem on a line of its own and end this process with status 2."""
    for problem in problems:
        print(f"oea-server: {verb}: {problem}", file=sys.stderr, flush=True)
    raise SystemExit(2)
