"""One change of knobs at a time, though several processes serve HTTP.

They share a file that has no name, held open by the launcher: nothing is left behind, however it
ends."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

Turn = Callable[[], AbstractAsyncContextManager[None]]
VARIABLE = "_OEA_TURN"
"""Where HTTP workers find it; no knob."""
WAIT = 0.02
"""Seconds between two looks whether another process's turn is over."""


def share() -> None:
    """Have the HTTP workers that this process will start take turns."""
    handle = os.memfd_create("oea-turn")
    os.environ[VARIABLE] = f"/proc/{os.getpid()}/fd/{handle}"


def turns(shared: str | None = None) -> Turn:
    """A context for a change: one at a time, in this process and in the processes that share the
    file."""
    here = asyncio.Lock()
    handle = os.open(shared, os.O_RDWR | os.O_CLOEXEC) if shared else None

    @asynccontextmanager
    async def turn() -> AsyncIterator[None]:
        async with here:
            if handle is None:
                yield
                return
            while not _taken(handle):
                await asyncio.sleep(WAIT)
            try:
                yield
            finally:
                fcntl.flock(handle, fcntl.LOCK_UN)

    return turn


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
