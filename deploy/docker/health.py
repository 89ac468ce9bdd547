#!/usr/bin/env python3
"""The container's health check: /health of the server inside, which answers 503 while it drains.

It asks where the command line of the container says that the server listens; OEA_URL where that is
not enough."""

from __future__ import annotations

import os
import ssl
import sys
import urllib.request
from itertools import pairwise
from pathlib import Path

TIMEOUT = 22.0
"""Seconds. Longer than SGLang gives itself (20), shorter than the HEALTHCHECK's, so that the reason
is kept."""
FLAGS = ("--host", "--port", "--ssl-certfile")
ITSELF = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where one who listens on all addresses is asked."""


def given(command: list[str]) -> dict[str, str]:
    """The values of FLAGS on a command line, in both spellings; the last counts, as for SGLang."""
    found = {}
    for word, following in pairwise([*command, ""]):
        name, equals, value = word.partition("=")
        if name in FLAGS:
            found[name] = value if equals else following
    return found


def url(command: list[str]) -> str:
    """Where the server listens, by the command line that started it."""
    flags = given(command)
    scheme = "https" if flags.get("--ssl-certfile") else "http"
    host = flags.get("--host") or "127.0.0.1"
    host = ITSELF.get(host, host)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{flags.get('--port') or '30000'}"


def opener() -> urllib.request.OpenerDirector:
    """Without a proxy, which variables of the container may name for downloads; and without a look
    at the certificate, which is for the server's clients and not for 127.0.0.1."""
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unverified)
    )


def main() -> int:
    base = os.environ.get("OEA_URL") or url(Path("/proc/1/cmdline").read_text().split("\0"))
    try:
        with opener().open(f"{base.rstrip('/')}/health", timeout=TIMEOUT) as answer:
            print(answer.status)
    except (OSError, ValueError) as error:  # an HTTPError is an OSError
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
