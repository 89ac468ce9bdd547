"""Stop the launch with one clear line. SGLang's plug-in loader swallows exceptions, not this."""

from __future__ import annotations

import sys
from typing import NoReturn


def refuse(*problems: str) -> NoReturn:
    """Print each problem on a line of its own and end this process with status 2."""
    for problem in problems:
        print(f"oea-server: refusing to start: {problem}", file=sys.stderr, flush=True)
    raise SystemExit(2)
