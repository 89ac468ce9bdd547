"""A document's command, asked of a server that runs, which is then as it was before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from oea_server.client.server import Server
from tests.documents import checkout, ledger
from tests.documents.ledger import Way
from tests.documents.pages import Command

PORTS = ("http://127.0.0.1:30000", "http://SERVER:30000", "URL")
"""What pages call the server, beside `$SERVER`."""


def asked(command: Command, how: Way, server: Server, folder: Path) -> str:
    """Run a command against a server; what it printed."""
    (folder / "admin-key").write_text(server.key or "")
    where = {"OEA_URL": server.url, "SERVER": server.url}
    with left_as_found(server):
        # 3 says that so few tasks cannot tell
        codes = (("", "|| test $? -eq 3"),) if command.text.startswith("oea-server qualify") else ()
        puts = (*((port, server.url) for port in PORTS), *codes)
        return checkout.typed(command, how, folder, where, puts)


@contextlib.contextmanager
def left_as_found(server: Server) -> Iterator[None]:
    before = server.config()["settings"]
    try:
        yield
    finally:
        after = server.config()["settings"]
        changed = {name: value for name, value in before.items() if after[name] != value}
        if changed:
            server.steer(**changed)


def all_of(by: str, server: Server, folder: Path) -> int:
    """Run everything that the ledger has for a test with a server of its own; how many."""
    found = list(ledger.run_by(by))
    for command, how in found:
        asked(command, how, server, folder)
    return len(found)
