"""Faults of /dev/shm, in which SGLang's ranks meet: no byte of it at the start, or none any
more."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from loadtest.chaos import mounts, traces
from loadtest.chaos.arena import DEADLINE, PROMPTS, body, server
from loadtest.chaos.fatal import wait
from loadtest.chaos.outcome import BROKE, HELD, Outcome, said_of, skipped
from loadtest.chaos.starting import left, refused, start
from loadtest.client import BROKEN, chat, session
from loadtest.stream import Stream
from oea_server.client.server import Server

SHM = "/dev/shm"
ROOM = 64 * 1024
"""KiB, what containers have unless they are given more."""
RANKS = ("--tp", "2", "--ep-size", "2")
TOKENS = 200
PATIENCE = 120.0
"""Seconds for a stream: two ranks share a busy machine's cores."""
REASONS = ("No space left", "Bus error")


async def full_at_start() -> Outcome:
    """The server is refused, in one line."""
    name = "/dev/shm full at the start (TP2)"
    if why := mounts.missing():
        return skipped(name, why)
    with mounts.disk(ROOM) as place:
        running = server(*RANKS, command=mounts.private(place, SHM))
        try:
            with mounts.full(place):
                return refused(name, await start(running), SHM)
        finally:
            running.stop()


async def full_after() -> Outcome:
    """It fills up under streams: they are whole, or the server ends and says why."""
    name = "/dev/shm full after the start (TP2)"
    if why := mounts.missing():
        return skipped(name, why)
    with mounts.disk(ROOM) as place, server(*RANKS, command=mounts.private(place, SHM)) as running:
        began = time.monotonic()
        early = asyncio.create_task(_chats(running))
        await asyncio.sleep(1.0)
        with mounts.full(place):
            saw = [*await early, *await _chats(running)]
        return await _judge(name, running, place, saw, began)


async def _judge(name: str, running: Server, place: Path, saw: list[str], began: float) -> Outcome:
    assert running.process is not None
    # what cut the streams may need a while to end the rest
    code = (
        running.process.poll()
        if set(saw) == {"whole"}
        else await asyncio.to_thread(wait, running, DEADLINE)
    )
    log = running.log.read_text(errors="replace")
    said = next((line for line in log.splitlines() if any(each in line for each in REASONS)), "")
    # to the first alone, which ends the others: at once killed, nobody clears away what they share
    if code is None:
        running.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(wait, running, DEADLINE)
    running.stop()
    group = await asyncio.to_thread(left, running.process.pid)
    files = [f"{SHM}/{each.name}" for each in place.iterdir()]
    wrong, known = wrong_with(saw, code, said, group, files)
    did = "ran on" if code is None else f"ended with {code}: {said.strip()[:160]}"
    leaked = ", ".join([*group, *files]) or "nothing"
    seconds = time.monotonic() - began
    what = ", ".join(f"{saw.count(each)} {each}" for each in dict.fromkeys(saw)) + said_of(known)
    return Outcome(name, what, "–", did, leaked, BROKE if wrong else HELD, tuple(wrong), seconds)


def wrong_with(
    saw: list[str], code: int | None, said: str, group: list[str], files: list[str]
) -> tuple[list[str], list[str]]:
    """What is wrong, and what is SGLang's own.

    Args:
        saw: how each chat ended.
        code: what the server ended with; None if it ran on.
        said: the line of its log that tells why.
        group, files: what was left of it, in the end.
    """
    wrong = []
    if code is None and set(saw) != {"whole"}:
        wrong.append("it runs, and not every chat is answered")
    if code is not None and not said:
        wrong.append("it does not say why it ended")
    if group:
        wrong.append(f"left behind: {', '.join(group)}")
    bad, known = traces.apart(files)
    if code is None:  # a process that was killed cannot clear away what it shared
        wrong += bad
    return wrong, known


async def _chats(running: Server) -> list[str]:
    """How each of some streams ended."""
    async with session(timeout=PATIENCE) as http:
        streams = (chat(http, running.url, body(each, TOKENS)) for each in PROMPTS)
        found = await asyncio.gather(*streams, return_exceptions=True)
    for each in found:
        if not isinstance(each, (Stream, *BROKEN)):
            raise each
    return ["whole" if isinstance(each, Stream) else type(each).__name__ for each in found]
