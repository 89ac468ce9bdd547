"""Faults of what is around a server: its disk, its clock."""

from __future__ import annotations

import asyncio
import re
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import aiohttp

from loadtest.chaos import mounts
from loadtest.chaos.arena import DEADLINE, PROMPTS, Arena, body, server
from loadtest.chaos.fatal import wait
from loadtest.chaos.outcome import BROKE, HELD, Outcome, Seen, skipped
from loadtest.client import BROKEN, chat, session
from oea_server.client.server import Server

SHIFTS = Path(__file__).parent / "clock.c"
JUMPS = (3600, -7200, 0)
"""Seconds by which the clock is ahead, one after the other."""
PATIENCE = 8.0
"""Seconds for numbers that are made once a second, with a look that finds nothing new in
between."""
DISK = 16 * 1024
"""KiB: room to start in, which is then filled."""


async def full_disk() -> Outcome:
    """The metrics' directory on a file system that is full: the server starts and serves, or says
    why not and ends."""
    name = "full disk for the metrics"
    if why := mounts.missing():
        return skipped(name, why)
    with mounts.disk(DISK) as place:
        return await _on_disk(name, place)


async def _on_disk(name: str, place: Path) -> Outcome:
    running = server(environment={"PROMETHEUS_MULTIPROC_DIR": str(place)})
    start = time.monotonic()
    try:
        await asyncio.to_thread(running.start)
    except RuntimeError:
        said = next(
            (
                line
                for line in running.tail(60).splitlines()
                if "space left" in line or "Bus error" in line
            ),
            "",
        )
        seconds = time.monotonic() - start
        running.stop()
        why = () if said else ("it does not say why",)
        return Outcome(
            name,
            "no server",
            "–",
            f"did not start: {said[:120]}",
            "nothing",
            BROKE if why else HELD,
            why,
            seconds,
        )
    try:
        return await _bear_and_fill(name, place, running)
    finally:
        running.stop()


async def _bear_and_fill(name: str, place: Path, running: Server) -> Outcome:
    """It runs: fill what is left, and chat."""
    arena, start = Arena(running, None, None), time.monotonic()
    mark = running.log.stat().st_size
    with mounts.full(place):
        statuses = list[str]()
        async with session(timeout=DEADLINE) as http:
            for prompt in (*PROMPTS, *PROMPTS):
                try:
                    statuses.append(
                        "whole" if (await chat(http, arena.url, body(prompt, 32))).done else "cut"
                    )
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
    wrong = (
        []
        if whole == len(statuses) or code is not None
        else ["it runs, and not every chat is answered"]
    )
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
    """The system's clock goes forward and back by hours under streams, for the server's processes
    alone."""
    name = "the clock jumps by hours"
    compiler = shutil.which("cc")
    if compiler is None:
        return skipped(name, "no C compiler, to make what moves the clock of a single process")
    with tempfile.TemporaryDirectory(prefix="loadtest-clock-") as folder:
        library, clock = Path(folder) / "clock.so", Path(folder) / "offset"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(SHIFTS), "-ldl"],
            check=True,
        )
        set_clock(clock, 0)
        with server(
            environment={"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(clock)}
        ) as running:
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
        seen = await _numbers(http, arena.url, 0.0)
        for count, jump in enumerate(JUMPS):
            set_clock(clock, jump)
            # under vanilla it changes no answer
            async with http.put(
                arena.url + "/oea/config", json={"min_batch": 3 + count % 2}
            ) as reply:
                version = (await reply.json())["version"]
            await chat(http, arena.url, body(f"what time is it, {jump:+}?", 32))
            before = seen
            deadline = time.monotonic() + PATIENCE
            while (
                stands := still(before, seen, version, time.time() + jump)
            ) and time.monotonic() < deadline:
                await asyncio.sleep(0.5)
                seen = await _numbers(http, arena.url, before.last)
            wrong += [f"at {jump:+} s: {each}" for each in stands]
            async with http.get(arena.url + "/health") as reply:
                if reply.status != 200:
                    wrong.append(f"/health at {jump:+} s: {reply.status}")
    ahead = ", ".join(f"{jump:+}" for jump in JUMPS)
    return Seen(
        f"all chats answered, the clock at {ahead} s" + ("" if wrong else "; all numbers moved"),
        tuple(wrong),
    )


class Numbers(NamedTuple):
    """What is shown of a server to somebody who has heard of it before."""

    t: float
    last: float
    """Of the newest point; of the one before if there is none that is new."""
    steps: int
    """Of all points that are new."""
    version: int
    total: int
    counted: float
    """Steps in /metrics."""


async def _numbers(http: aiohttp.ClientSession, url: str, since: float) -> Numbers:
    async with http.get(f"{url}/oea/stats", params={"since": str(since)}) as reply:
        stats = await reply.json()
    async with http.get(f"{url}/metrics") as reply:
        counted = re.search(
            r"^oea_decode_batch_size_count(?:{.*})? (.+)$", await reply.text(), re.M
        )
    points = stats["points"]
    return Numbers(
        stats["t"],
        points[-1]["t"] if points else since,
        sum(point["steps"] for point in points),
        max((point["version"] for point in points), default=-1),
        stats["total"]["steps"] if stats["total"] else 0,
        float(counted[1]) if counted else 0.0,
    )


def still(before: Numbers, now: Numbers, version: int, wall: float) -> list[str]:
    """What has not moved on since `before`, by a server whose wall clock says `wall` and whose
    configuration is that of `version`."""
    moved = {
        "no point is new": now.last != before.last,
        "no new point has steps": now.steps > 0,
        f"/oea/stats is at version {now.version}, not {version}": now.version == version,
        "the sum of steps stands still": now.total > before.total,
        "/metrics stands still": now.counted > before.counted,
        "/oea/stats has another time than the clock": abs(now.t - wall) < PATIENCE,
        "the newest point is of another time than the clock": abs(now.last - wall) < PATIENCE,
    }
    return [said for said, true in moved.items() if not true]
