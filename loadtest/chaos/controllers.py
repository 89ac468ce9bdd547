"""What a controller steers by is taken from it: it holds its rung, then goes to the safe one, and
comes back."""

from __future__ import annotations

import asyncio
import functools
import tempfile
import time
from pathlib import Path
from typing import Any

from loadtest.chaos import mounts
from loadtest.chaos.arena import Arena, body, server
from loadtest.chaos.outcome import Outcome, Seen, skipped
from loadtest.chaos.stalls import stopped
from loadtest.client import BROKEN, chat, session
from oea_server.client.ask import ask
from oea_server.controller.keeper import LAG, PERIOD
from oea_server.controller.law import PATIENCE

RUNGS = Path(__file__).parents[2] / "deploy/rungs/demo.json"
FLAGS = (
    "--oea-policy",
    "oea",
    "--oea-target-tpot",
    "0.1ms",
    "--oea-rungs",
    str(RUNGS),
    "--oea-quality-floor",
    "0.8",
)
"""A target that nothing can hold: the lowest rung that the floor allows has to serve, whenever
there are numbers."""
SAFE, LOWEST = "vanilla", "k0=4"
CHATS = 8
ROOM = 64 * 1024
"""KiB of the file system that the metrics lie on."""
BLIND = (PATIENCE + 3) * (PERIOD + LAG)
"""Seconds in which it has to be at the safe rung without numbers; and at its lowest again with
them."""
STALL = 20.0
DEADLINE = 5 * BLIND + STALL


async def blinded() -> Outcome:
    """The metrics' folder becomes read-only for a while; then a scheduler stands still."""
    name = "a controller without numbers"
    if why := mounts.missing():
        return skipped(name, why)
    with (
        mounts.disk(ROOM) as place,
        tempfile.TemporaryDirectory(prefix="loadtest-tmp-") as elsewhere,
    ):
        environment = {"PROMETHEUS_MULTIPROC_DIR": str(place), "TMPDIR": elsewhere}
        with server(*FLAGS, environment=environment, command=mounts.private()) as running:
            arena = Arena(running, None, None)
            fault = functools.partial(_blind, place=place)
            return await arena.bear(name, fault, alone=True, deadline=DEADLINE)


async def _blind(arena: Arena, place: Path) -> Seen:
    wrong, over = list[str](), asyncio.Event()
    async with session(timeout=DEADLINE) as http:

        async def go_on(number: int) -> None:
            while not over.is_set():
                try:
                    await chat(http, arena.url, body(f"{number}: go on", 64))
                except BROKEN as error:
                    wrong.append(f"a chat broke: {type(error).__name__}: {error}"[:150])
                    return

        chats = [asyncio.create_task(go_on(number)) for number in range(CHATS)]
        wrong += await _until(arena, LOWEST, "at the start")
        mounts.freeze(arena.pid, place)
        try:
            wrong += await _until(arena, SAFE, "while the metrics' folder is read-only")
        finally:
            mounts.thaw(arena.pid, place)
        wrong += await _until(arena, LOWEST, "with numbers again")
        async with stopped(arena, "scheduler"):
            await asyncio.sleep(STALL)
        wrong += await _until(arena, LOWEST, "after the scheduler stood still")
        over.set()
        await asyncio.gather(*chats)
    return Seen(
        "lowest rung, safe rung without numbers, lowest again; a scheduler stopped for"
        f" {STALL:.0f} s",
        tuple(wrong),
    )


async def _until(arena: Arena, rung: str, when: str) -> list[str]:
    """Wait until a rung serves: what is wrong if it does not, or if the knobs in force are not its
    own."""

    def serves() -> tuple[dict[str, Any], dict[str, Any]]:
        state: dict[str, Any] = ask("GET", f"{arena.url}/oea/controller", timeout=60).json()
        return state, arena.reader.config()["settings"]

    deadline = time.monotonic() + BLIND
    while time.monotonic() < deadline:
        state, knobs = await asyncio.to_thread(serves)
        if state["mode"] != "on":
            return [f"{when}: it is {state['mode']}: {state['reason']}"]
        wanted = (
            knobs["policy"] == "vanilla"
            if rung == SAFE
            else (knobs["policy"], f"k0={knobs['k0']}") == ("oea", rung)
        )
        if state["rung"] == rung and wanted:
            return []
        await asyncio.sleep(0.5)
    return [f"{when}: rung {state['rung']} serves ({state['reason']}), not {rung}"]
