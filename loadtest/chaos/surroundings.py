"""Faults of what is around a server: its disk, its clock."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from loadtest.chaos.arena import DEADLINE, PROMPTS, Arena, body, server
from loadtest.chaos.fatal import wait
from loadtest.chaos.outcome import BROKE, HELD, Outcome, Seen, skipped
from loadtest.client import BROKEN, chat, session
from oea_server.demo.server import Server

SHIFTS = Path(__file__).parent / "clock.c"
JUMP = 3600
"""Seconds."""
DISK = 16 * 1024
"""KiB: room to start in, which is then filled."""


async def full_disk() -> Outcome:
    """The metrics' directory on a file system that is full: the server starts and serves, or says why not and ends."""
    name = "full disk for the metrics"
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return skipped(name, "needs root, to mount a file system of 16 MiB")
    place = Path(tempfile.mkdtemp(prefix="loadtest-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}k", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        place.rmdir()
        return skipped(name, f"cannot mount: {mounted.stderr.strip()[:100]}")
    try:
        return await _on_disk(name, place)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)
        place.rmdir()


async def _on_disk(name: str, place: Path) -> Outcome:
    running = server(environment={"PROMETHEUS_MULTIPROC_DIR": str(place)})
    start = time.monotonic()
    try:
        await asyncio.to_thread(running.start)
    except RuntimeError:
        said = next((line for line in running.tail(60).splitlines() if "space left" in line or "Bus error" in line), "")
        seconds = time.monotonic() - start
        running.stop()
        why = () if said else ("it does not say why",)
        return Outcome(
            name, "no server", "–", f"did not start: {said[:120]}", "nothing", BROKE if why else HELD, why, seconds
        )
    try:
        return await _bear_and_fill(name, place, running)
    finally:
        running.stop()


async def _bear_and_fill(name: str, place: Path, running: Server) -> Outcome:
    """It runs: fill what is left, and chat."""
    arena, start = Arena(running, None, None), time.monotonic()
    mark = running.log.stat().st_size
    with (place / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(b"x" * 4096):
            pass
    statuses = list[str]()
    async with session(timeout=DEADLINE) as http:
        for prompt in (*PROMPTS, *PROMPTS):
            try:
                statuses.append("whole" if (await chat(http, arena.url, body(prompt, 32))).done else "cut")
            except BROKEN as error:
                statuses.append(type(error).__name__)
        try:
            async with http.get(f"{arena.url}/metrics") as reply:
                metrics = str(reply.status)
        except BROKEN as error:
            metrics = type(error).__name__
    assert running.process is not None
    code = await asyncio.to_thread(wait, running, 5.0)
    whole = statuses.count("whole")
    wrong = [] if whole == len(statuses) or code is not None else ["it runs, and not every chat is answered"]
    return Outcome(
        name,
        f"{whole} of {len(statuses)} chats whole, /metrics {metrics}",
        "–",
        f"{arena.logged(mark)}; " + ("runs" if code is None else f"ended with {code}"),
        "–",
        BROKE if wrong else HELD,
        tuple(wrong),
        time.monotonic() - start,
    )


async def clock_jumps() -> Outcome:
    """The system's clock goes an hour forward and back under streams, for the server's processes alone."""
    name = "the clock jumps by an hour"
    compiler = shutil.which("cc")
    if compiler is None:
        return skipped(name, "no C compiler, to make what moves the clock of a single process")
    with tempfile.TemporaryDirectory(prefix="loadtest-clock-") as folder:
        library, clock = Path(folder) / "clock.so", Path(folder) / "offset"
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(SHIFTS), "-ldl"], check=True)
        set_clock(clock, 0)
        with server(environment={"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(clock)}) as running:
            arena = Arena(running, None, None)
            await arena.learn()
            return await arena.bear(name, lambda arena: _jump(arena, clock))


def set_clock(clock: Path, seconds: int) -> None:
    """Move it, in place: the processes have the file mapped."""
    with clock.open("r+b" if clock.exists() else "wb") as file:
        file.write(struct.pack("=q", seconds))


async def _jump(arena: Arena, clock: Path) -> Seen:
    wrong = list[str]()
    async with session(timeout=DEADLINE) as http:
        for jump in (0, JUMP, -JUMP, 0):
            set_clock(clock, jump)
            await asyncio.sleep(2.0)
            await chat(http, arena.url, body(f"what time is it, {jump:+}?", 32))
            for path in ("/health", "/metrics", "/oea/stats"):
                async with http.get(arena.url + path) as reply:
                    if reply.status != 200:
                        wrong.append(f"{path} at {jump:+} s: {reply.status}")
    return Seen("all chats answered, an hour early and late", tuple(wrong))
