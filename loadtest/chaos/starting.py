"""A server that may not come up: whether it did, or in which words it ended, and what it left
behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]

from loadtest.chaos import traces
from loadtest.chaos.outcome import BROKE, HELD, Outcome
from oea_server.client.server import Server
from oea_server.engine.refuse import PREFIX

PATIENCE = 300.0
"""Seconds for a start on a busy machine, or for its end."""
LINGER = 10.0
"""Seconds for processes to go after the launcher."""


class Ended(NamedTuple):
    """A start that came to its end.

    Args:
        refusals: lines of ours in its log.
        tracebacks: how many it holds.
        left: processes of its group.
    """

    code: int | None
    """None if it neither ended nor answered."""
    refusals: list[str]
    tracebacks: int
    left: list[str]
    seconds: float


async def start(running: Server) -> Ended | None:
    """Start it; None once it answers."""
    return await asyncio.to_thread(begin, running)


def begin(running: Server) -> Ended | None:
    """The same, in this thread."""
    process = running.spawn()
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < PATIENCE:
        if running.is_up():
            return None
        time.sleep(0.3)
    seconds = time.monotonic() - began
    log = running.log.read_text(errors="replace")
    return Ended(
        process.poll(),
        [line for line in log.splitlines() if line.startswith(PREFIX)],
        log.count("Traceback (most recent call last)"),
        left(process.pid),
        seconds,
    )


def left(group: int) -> list[str]:
    """Processes of a group that do not go."""
    deadline = time.monotonic() + LINGER
    while (found := _members(group)) and time.monotonic() < deadline:
        time.sleep(0.3)
    return found


def _members(group: int) -> list[str]:
    found = []
    for process in traces.of_session(group):
        with contextlib.suppress(psutil.Error):
            found.append(f"{process.name()} {process.pid}")
    return found


def refused(name: str, ended: Ended | None, names: str) -> Outcome:
    """Judge a start that has to be refused: in one line of ours that says `names`, and with nothing
    left behind."""
    if ended is None:
        return Outcome(name, "a server", "–", "started", "–", BROKE, ("it started",))
    wrong = []
    if ended.code is None:
        wrong.append(f"neither refused nor served after {ended.seconds:.0f} s")
    elif len(ended.refusals) != 1 or names not in ended.refusals[0]:
        wrong.append(f"{len(ended.refusals)} lines of refusal, and none that says {names or 'why'}")
    if ended.tracebacks:
        wrong.append(f"{ended.tracebacks} tracebacks")
    if ended.left:
        wrong.append(f"left behind: {', '.join(ended.left)}")
    said = (ended.refusals or ["nothing"])[0].removeprefix(PREFIX)
    return Outcome(
        name,
        "no server",
        "–",
        f"said: {said}; ended with {ended.code} after {ended.seconds:.1f} s",
        ", ".join(ended.left) or "nothing",
        BROKE if wrong else HELD,
        tuple(wrong),
        ended.seconds,
    )


def not_started(name: str, ended: Ended) -> Outcome:
    """Judge a start that may be refused: in one line of ours, with no traceback and nothing left
    behind."""
    return refused(name, ended, "")
