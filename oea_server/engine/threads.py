"""Room for a server's processes and threads, tried before any is started. Without room SGLang ends
amid its start, each process in a traceback of its own.

Tried and not looked up: a limit may be the user's, or the container's, which shows it nowhere.
"""

from __future__ import annotations

import threading
from typing import Any

from oea_server.engine.ranks import schedulers_here

FOR_ALL, FOR_EACH_RANK = 24, 24
"""Threads, fewer than any server has: on 2 cores without a GPU launcher and detokenizer have 27, a
scheduler 38."""


def problems(view: Any) -> list[str]:
    """Why there is no room for what these arguments start here; [] if there may be.

    Args:
        view: SGLang's arguments, resolved.
    """
    ranks = schedulers_here(view)
    needed = FOR_ALL + FOR_EACH_RANK * ranks
    if (found := room(needed)) >= needed:
        return []
    return [
        f"only {found} more threads and processes can be started here, and a server of {ranks}"
        f" ranks has more than {needed}: raise the user's limit (ulimit -u), or the container's"
        " (pids)"
    ]


def room(wanted: int) -> int:
    """How many threads can be started, `wanted` at most; all have ended when it returns."""
    over = threading.Event()
    started: list[threading.Thread] = []
    try:
        while len(started) < wanted:
            thread = threading.Thread(target=over.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:  # can't start new thread
        pass
    finally:
        over.set()
        for thread in started:
            thread.join()
    return len(started)
