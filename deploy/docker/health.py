#!/usr/bin/env python3
"""The container's health check: /health of the server inside, which answers 503 while it drains.

It asks the port that the server was told, on the command line of the container; OEA_URL where that is not enough (TLS).
"""

from __future__ import annotations

import os
import sys
import urllib.request
from pathlib import Path

TIMEOUT = 22.0
"""Seconds. Longer than SGLang gives itself (20), shorter than the HEALTHCHECK's, so that the reason is kept."""


def url(command: list[str]) -> str:
    """Where the server listens, by the command line that started it."""
    port = "30000"
    for word, following in zip(command, [*command[1:], ""], strict=False):
        if word == "--port":
            port = following
        elif word.startswith("--port="):
            port = word.removeprefix("--port=")
    return f"http://127.0.0.1:{port}"


def main() -> int:
    base = os.environ.get("OEA_URL") or url(Path("/proc/1/cmdline").read_text().split("\0"))
    try:
        with urllib.request.urlopen(f"{base.rstrip('/')}/health", timeout=TIMEOUT) as answer:
            print(answer.status)
    except (OSError, ValueError) as error:  # an HTTPError is an OSError
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
