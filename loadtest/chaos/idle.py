"""Connections on which nothing is asked, by the thousand."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator

from loadtest import watch
from loadtest.chaos.arena import DEADLINE, Arena, body
from loadtest.chaos.outcome import Seen
from loadtest.chaos.probes import PROBE_TIMEOUT, probing
from loadtest.client import chat, session

IDLE, SPARE = 4000, 200
"""Connections, and handles that this process needs besides."""


async def idle_connections(arena: Arena) -> Seen:
    """Thousands of connections on which nothing is said, or half a line; chats and probes are
    answered meanwhile."""
    loop, opened = asyncio.get_running_loop(), list[socket.socket]()
    holds = watch.processes(arena.pid)["http"].num_fds
    with handles(IDLE + SPARE) as allowed:
        idle = min(IDLE, allowed - SPARE)
        try:
            for number in range(idle):
                one = socket.socket()
                opened.append(one)
                one.setblocking(False)
                await asyncio.wait_for(
                    loop.sock_connect(one, ("127.0.0.1", arena.port)), PROBE_TIMEOUT
                )
                if number % 2:
                    await loop.sock_sendall(one, b"GET /hea")
            async with (
                session(arena.key, timeout=DEADLINE) as http,
                probing(arena.url, arena.key) as probes,
            ):
                for _ in range(3):
                    await chat(http, arena.url, body("and beside them?", 16))
                    await asyncio.sleep(1.0)
                held = holds()
        finally:
            for one in opened:
                one.close()
    wrong = [f"probe {said}" for said in probes if not said.endswith(" ok")]
    if held < idle:
        wrong.append(f"only {held} handles of the server's for {idle} connections")
    return Seen(
        f"{idle} connections held; 3 chats and {probes.total()} probes answered beside them",
        tuple(wrong),
    )


@contextlib.contextmanager
def handles(number: int) -> Iterator[int]:
    """Room for so many in this process, or as many as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = max(soft, min(number, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    try:
        yield allowed
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
