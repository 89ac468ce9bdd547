"""Faults that a server need not survive: then it has to end, within half a minute, so that somebody
restarts it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable

import psutil  # type: ignore[import-untyped]

from loadtest import watch
from loadtest.chaos import traces
from loadtest.chaos.arena import BYSTANDERS, DEADLINE, PROMPTS, Arena, body, server
from loadtest.chaos.outcome import BROKE, HELD, Outcome
from loadtest.client import BROKEN, RefusedError, chat, session
from loadtest.stream import Stream
from oea_server.client.server import Server

LINGER = 5.0
"""Seconds that the kernel may take to be rid of a process that was killed: it has gigabytes to give
back."""
LONG = 600
"""Tokens: the stream that a fault falls into."""


async def ending(
    name: str, running: Server, kill: Callable[[Server], None], whole: bool
) -> Outcome:
    """Kill a part of a server amid streams.

    Args:
        whole: whether the streams have to come to their end; else to an error, or to one.
    """
    assert running.process is not None
    family = {process.pid: process for process in watch.processes(running.process.pid).values()}
    mark = running.log.stat().st_size
    shared = await asyncio.to_thread(traces.shared_memory, running)
    arena = Arena(running, None, None)
    async with session(timeout=2 * DEADLINE) as http:
        streams = [
            asyncio.create_task(chat(http, arena.url, body(prompt, LONG))) for prompt in PROMPTS
        ]
        await asyncio.sleep(2.0)
        start = time.monotonic()
        kill(running)
        late = await _late(arena) if whole else "not asked"
        _, hanging = await asyncio.wait(streams, timeout=DEADLINE)
        streamed = time.monotonic() - start
        for stream in hanging:
            stream.cancel()
        results = await asyncio.gather(*streams, return_exceptions=True)
    code = await asyncio.to_thread(wait, running, DEADLINE - (time.monotonic() - start) + 5)
    ended = time.monotonic() - start
    _, alive = await asyncio.to_thread(
        psutil.wait_procs, [each for each in family.values() if _runs(each)], LINGER
    )
    left = [str(process.pid) for process in alive if _runs(process)]
    traces.sweep(shared)  # a process that was killed clears nothing away
    complete = sum(isinstance(result, Stream) and result.tokens == LONG for result in results)
    errors = [result for result in results if isinstance(result, BROKEN)]
    wrong = []
    if hanging:
        wrong.append(f"{len(hanging)} streams hung for {DEADLINE:.0f} s")
    if whole and complete < BYSTANDERS:
        wrong.append(f"{BYSTANDERS - complete} streams were cut")
    if code is None:
        wrong.append(f"the server still runs after {ended:.0f} s")
    if left:
        wrong.append(f"processes {', '.join(left)} were left behind")
    saw = f"{complete} of {BYSTANDERS} streams whole, {len(errors)} broken"
    saw += f" ({type(errors[0]).__name__})" if errors else ""
    if whole:
        saw += f"; a new request: {late}"
    return Outcome(
        name,
        f"{saw}, after {streamed:.1f} s",
        "–",
        f"{arena.logged(mark)}; "
        + ("runs" if code is None else f"ended with {code} after {ended:.1f} s"),
        f"processes {', '.join(left)}" if left else "nothing",
        BROKE if wrong else HELD,
        tuple(wrong),
        ended,
    )


async def sigterm() -> Outcome:
    """SIGTERM to the launcher: running streams are finished, new requests refused, and the server
    ends."""

    def end(running: Server) -> None:
        assert running.process is not None
        running.process.send_signal(signal.SIGTERM)

    with server() as running:
        return await ending("SIGTERM mid-stream", running, end, whole=True)


async def killed_scheduler() -> Outcome:
    """SIGKILL to the scheduler, as the kernel does when memory runs out."""
    with server() as running:
        return await ending("kill -9 of the scheduler", running, kill("scheduler"), whole=False)


async def killed_rank() -> Outcome:
    """SIGKILL to the second of two ranks."""
    with server("--tp", "2", "--ep-size", "2") as running:
        return await ending("kill -9 of a rank (TP2, EP2)", running, kill("TP1"), whole=False)


async def killed_detokenizer() -> Outcome:
    """SIGKILL to the detokenizer, without which no answer gets out."""
    with server() as running:
        return await ending("kill -9 of the detokenizer", running, kill("detokenizer"), whole=False)


def kill(role: str) -> Callable[[Server], None]:
    """What sends SIGKILL to the first process of that role."""

    def send(running: Server) -> None:
        assert running.process is not None
        found = {
            name: each
            for name, each in watch.processes(running.process.pid).items()
            if role in name
        }
        next(iter(found.values())).kill()

    return send


async def _late(arena: Arena) -> str:
    """What a request sees that comes while the server drains."""
    await asyncio.sleep(1.0)
    try:
        async with session(timeout=DEADLINE) as http:
            return "answered" if (await chat(http, arena.url, body("too late?", 4))).done else "cut"
    except RefusedError as error:
        return str(error.status)
    except BROKEN as error:
        return type(error).__name__


def wait(running: Server, seconds: float) -> int | None:
    """Its exit status; None if it runs on."""
    assert running.process is not None
    try:
        return running.process.wait(max(seconds, 0.1))
    except subprocess.TimeoutExpired:
        return None


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
