"""Who sent a request, for the log: the socket's address first, since a header can claim any
other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from oea_server.access.origin import PEER
from oea_server.oneline import oneline

ADDRESS = re.compile(r"[0-9A-Za-z.:%_-]{1,64}")
LONGEST = 64
NOBODY = "somebody"
"""A Unix socket's clients have no address."""


def name(scope: Mapping[str, Any]) -> str:
    """``10.0.0.7``, or ``10.0.0.7 (claims 203.0.113.99)`` where a header says so."""
    client = _host(scope.get("client"))
    peer = _host(scope[PEER]) if PEER in scope else client
    return peer if peer == client else f"{peer} (claims {client})"


def _host(address: Any) -> str:
    host = str(address[0]) if address else ""
    if not host or ADDRESS.fullmatch(host):
        return host or NOBODY
    # quoted: it may read as the rest of our line does
    return oneline(repr(host[:LONGEST]), LONGEST)
