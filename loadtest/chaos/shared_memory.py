"""Faults of /dev/shm, in which SGLang's ranks meet: no byte of it at the start, or none any more."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from loadtest.chaos import mounts
from loadtest.chaos.arena import DEADLINE, PROMPTS, body, server
from loadtest.chaos.fatal import wait
from loadtest.chaos.outcome import BROKE, HELD, Outcome, skipped
from loadtest.chaos.starting import left, refused, start
from loadtest.client import BROKEN, chat, session
from loadtest.stream import Stream
from oea_server.demo.server import Server

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
    code = running.process.poll() if set(saw) == {"whole"} else await asyncio.to_thread(wait, running, DEADLINE)
    runs = code is None
    log = running.log.read_text(errors="replace")
    said = next((line for line in log.splitlines() if any(each in line for each in REASONS)), "")
    wrong = []
    if runs and set(saw) != {"whole"}:
        wrong.append("it runs, and not every chat is answered")
    if not runs and not said:
        wrong.append("it does not say why it ended")
    running.stop()
    group = await asyncio.to_thread(left, running.process.pid)
    files = [each.name for each in place.iterdir()]
    if group:
        wrong.append(f"left behind: {', '.join(group)}")
    if runs and files:
        wrong.append(f"left in {SHM}: {', '.join(files)}")
    did = "ran on" if runs else f"ended with {code}: {said.strip()[:160]}"
    leaked = ", ".join([*group, *files]) or "nothing"
    seconds = time.monotonic() - began
    what = ", ".join(f"{saw.count(each)} {each}" for each in dict.fromkeys(saw))
    return Outcome(name, what, "–", did, leaked, BROKE if wrong else HELD, tuple(wrong), seconds)


async def _chats(running: Server) -> list[str]:
    """How each of some streams ended."""
    async with session(timeout=PATIENCE) as http:
        streams = (chat(http, running.url, body(each, TOKENS)) for each in PROMPTS)
        found = await asyncio.gather(*streams, return_exceptions=True)
    for each in found:
        if not isinstance(each, (Stream, *BROKEN)):
            raise each
    return ["whole" if isinstance(each, Stream) else type(each).__name__ for each in found]
