"""Stop the launch with one clear line. SGLang's plug-in loader swallows exceptions, not this."""

from __future__ import annotations

import sys
from typing import NoReturn

PREFIX = "oea-server: refusing to start: "


def refuse(*problems: str) -> NoReturn:
    """Print each problem on a line of its own and end this process with status 2."""
    for problem in problems:
        print(f"{PREFIX}{problem}", file=sys.stderr, flush=True)
    raise SystemExit(2)
