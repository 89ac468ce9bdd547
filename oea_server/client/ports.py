"""A TCP port that nobody else takes between its choice and its use."""

from __future__ import annotations

import random
import socket

BELOW_EPHEMERAL = (12000, 31000)
"""Ports below those that Linux gives to outgoing connections (32768 on), so that no connection of a
starting server takes one. SGLang derives further ports (up to 1,000 above), which stay below 32768
too."""


def free(host: str = "127.0.0.1") -> int:
    """A port of this machine that is free now.

    Raises:
        OSError: none of a hundred that were tried is.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in random.sample(range(*BELOW_EPHEMERAL), 100):
        with socket.socket(family) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port on {host}")
