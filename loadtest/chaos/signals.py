"""Signals in every phase of a server's life: it ends, with all that belongs to it, and without a
traceback of ours."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, Signals
from typing import NamedTuple

from loadtest.chaos import traces
from loadtest.chaos.arena import DEADLINE, PROMPTS, body, server
from loadtest.chaos.fatal import wait
from loadtest.chaos.outcome import BROKE, HELD, Outcome, left_of
from loadtest.client import BROKEN, chat, session
from oea_server.client.server import START_TIMEOUT, Server

IMPORTING = re.compile(rb"oea-server: policy")
STARTING = re.compile(rb"server_args=")
LOADING = re.compile(rb"Load weight begin")
WARMING = re.compile(rb"Uvicorn running|Application startup complete")
READY = re.compile(rb"The server is fired up")
BLOCK = re.compile(r"Traceback \(most recent call last\):\n(?:(?!Traceback).*\n)*?(?:\S.*)")
SPAWNED = 4
"""Processes when all are there: the first, its resource tracker, a scheduler, a detokenizer; these
import for long."""
LONG = 400
"""Tokens of the streams that a signal falls into."""


class Case(NamedTuple):
    """A signal at a moment.

    Args:
        line: of the log, after which it comes.
        then: seconds later.
        family: processes that there have to be.
        streams: that are being read then.
        whole: whether they have to come to their end.
        again: the same signal once more, a second later.
        patience: seconds in which it has to end, DEADLINE if not given.
        flags: of the server.
        tokens: of each stream.
        outlasts: seconds after the signal that its streams have to go on for, or the case asks
            nothing.
    """

    phase: str
    number: Signals
    line: re.Pattern[bytes]
    then: float = 0.5
    family: int = 1
    streams: int = 0
    whole: bool = True
    again: bool = False
    patience: float | None = None
    flags: tuple[str, ...] = ()
    tokens: int = LONG
    outlasts: float = 0.0


IMPORTS = 180.0
"""Seconds: a child that still imports SGLang finds only afterwards that its parent is dead."""
WARM_UP = 240.0
"""Seconds: SGLang's warm-up asks a port that is closed 120 times, and the end waits for it
(docs/load-testing.md)."""
CASES = (
    Case("importing", SIGINT, IMPORTING, 2.0),
    Case("starting processes", SIGKILL, STARTING, 1.0, family=SPAWNED, patience=IMPORTS),
    Case("loading weights", SIGTERM, LOADING, 0.0),
    Case("warming up", SIGHUP, WARMING, 0.0, patience=WARM_UP),
    Case("idle", SIGQUIT, READY),
    Case("idle", SIGINT, READY),
    Case("in a stream", SIGHUP, READY, streams=3),
    Case("draining, again", SIGTERM, READY, streams=3, again=True),
)
"""Each phase, and each signal at least once."""
IDLE_END = 5.0
"""Seconds after which an HTTP worker that has nothing to answer ends."""
AMONG_WORKERS = tuple(
    Case(
        "a stream of one of two HTTP workers",
        number,
        re.compile(rb"(?s)fired up.*fired up"),
        streams=1,
        patience=2 * DEADLINE,
        flags=("--tokenizer-worker-num", "2"),
        tokens=1500,
        outlasts=IDLE_END + 1,
    )
    for number in (SIGTERM, SIGHUP)
)
FROM_A_TERMINAL = (SIGINT, SIGHUP, SIGQUIT)
"""These go to all processes at once; the others to the first alone."""


async def every_phase() -> Outcome:
    """Each case on a server of its own, which is let come no further than it has to; told as it
    ends."""
    return await _each("signals in every phase", CASES)


async def among_workers() -> Outcome:
    """The worker that has nothing to answer ends early; the other's stream has to come to its end
    all the same."""
    return await _each("signals to several HTTP workers", AMONG_WORKERS)


async def _each(name: str, cases: tuple[Case, ...]) -> Outcome:
    heed()
    began, wrong, ends = time.monotonic(), list[str](), list[str]()
    for case in cases:
        said, problems = await _one(case)
        print(
            f"        {case.number.name} while {case.phase}: {'; '.join((said, *problems))}",
            flush=True,
        )
        ends.append(said)
        wrong += [f"{case.number.name} while {case.phase}: {each}" for each in problems]
    return Outcome(
        name,
        f"{len(cases)} signals: {', '.join(dict.fromkeys(case.phase for case in cases))}",
        "–",
        f"ended each time: {', '.join(ends)}",
        left_of(wrong),
        BROKE if wrong else HELD,
        tuple(wrong),
        time.monotonic() - began,
    )


def heed() -> None:
    """Have servers heed what this process was told to ignore, below nohup or in a shell's
    background: they inherit that."""
    for number in FROM_A_TERMINAL:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


async def _one(case: Case) -> tuple[str, list[str]]:
    """How it ended, and what was wrong with that."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        running = server(*case.flags, environment={"TMPDIR": folder})
        process = running.spawn()
        try:
            if not await asyncio.to_thread(_said, running, case):
                return "never", [f"did not come so far: {running.tail(3)}"]
            await asyncio.sleep(case.then)
            shared = await asyncio.to_thread(traces.shared_memory, running)
            cut, lasted = await _strike(case, running, process)
            start, patience = time.monotonic(), case.patience or DEADLINE
            code = await asyncio.to_thread(wait, running, patience)
            seconds = time.monotonic() - start
            proper = Path(folder) if code == 0 else None
            wrong, _ = traces.apart(
                await asyncio.to_thread(traces.left, running, shared, proper, case.patience)
            )
            if code is None:
                wrong.append(f"runs after {patience:.0f} s")
            if cut and case.whole:
                wrong.append(f"{cut} streams were cut")
            if not cut and lasted < case.outlasts:
                wrong.append(
                    f"the streams were over {lasted:.0f} s after the signal, before anything could"
                    " cut them"
                )
            wrong += [
                f"a traceback of ours: {each}"
                for each in ours(running.log.read_text(errors="replace"))
            ]
            own = (
                "; SGLang's own: waits for its warm-up"
                if code is not None and seconds > DEADLINE
                else ""
            )
            return f"{code} after {seconds:.0f} s{own}", wrong
        finally:
            await asyncio.to_thread(running.stop)
            traces.clear(running)


async def _strike(
    case: Case, running: Server, process: subprocess.Popen[bytes]
) -> tuple[int, float]:
    """Send it amid as many streams: how many were cut, and seconds until all were over."""
    send: Callable[[int], None] = process.send_signal
    if case.number in FROM_A_TERMINAL:
        send = lambda number: os.killpg(process.pid, number)  # noqa: E731
    async with session(timeout=2 * DEADLINE) as http:
        streams = [
            asyncio.create_task(chat(http, running.url, body(p, case.tokens)))
            for p in PROMPTS[: case.streams]
        ]
        if streams:
            await asyncio.sleep(1.5)
        start = time.monotonic()
        send(case.number)
        if case.again:
            await asyncio.sleep(1.0)
            send(case.number)
        results = await asyncio.gather(*streams, return_exceptions=True)
    return sum(isinstance(result, BROKEN) for result in results), time.monotonic() - start


def _said(running: Server, case: Case) -> bool:
    """Wait until it has come so far."""
    assert running.process is not None
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if (
            case.line.search(running.log.read_bytes())
            and len(traces.family(running)) >= case.family
        ):
            return True
        if running.process.poll() is not None:
            return False
        time.sleep(0.02)
    return False


def ours(log: str) -> list[str]:
    """Tracebacks that end in our code, the last line of each; a KeyboardInterrupt ends wherever it
    comes."""
    found = []
    for block in BLOCK.findall(log):
        places, last = re.findall(r'File "([^"]+)"', block), block.splitlines()[-1]
        if (
            places
            and f"{os.sep}oea_server{os.sep}" in places[-1]
            and not last.startswith("KeyboardInterrupt")
        ):
            found.append(last[:120])
    return found
