"""Chats whose number changes in steps, and what each span of their time was like."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, NamedTuple

from loadtest import lengths, workload
from loadtest.client import read, session
from loadtest.stream import Stream

SPAN = 5.0
"""Seconds of a span, as many as of the controller's periods."""
TENANT = workload.Tenant(
    "steps", prompt=lengths.Fixed(16), output=lengths.LogNormal(192, 0.5, 64, 512)
)
"""Answers are long, so that few steps wait for a prompt; not so long that attention to them
outgrows the experts."""
COUNTED: dict[str, Any] = {
    "stream_options": {"include_usage": True, "continuous_usage_stats": True}
}
"""A token that ends within a character has no text, and its time is in the next one's gap: tokens
must be counted."""


class Step(NamedTuple):
    """So many chats at once, for so many seconds."""

    chats: int
    seconds: float


class Span(NamedTuple):
    """What was served between two looks; None where nothing was.

    Args:
        seconds: since the side began, at its end.
        step: index of the step of load in which it began.
        tpot: mean seconds between two tokens of a chat.
        tokens: of all chats.
        rung: what the controller says that it serves, by its place; 0 if it is off.
    """

    seconds: float
    step: int
    tpot: float | None
    tokens: int
    unique: float | None
    mass_kept: float | None
    rung: int
    saturated: bool


def steps(text: str) -> list[Step]:
    """``2:40,32:100,2:100``: chats at once, and seconds.

    Raises:
        ValueError: one line: a part is none.
    """
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([1-9][0-9]{0,2}):([1-9][0-9]{0,4})\s*", part)
        if match is None:
            raise ValueError(f"--load={text}: {part!r} is not CHATS:SECONDS such as 32:100")
        found.append(Step(int(match[1]), float(match[2])))
    return found


def at(load: Sequence[Step], seconds: float) -> int:
    """The index of the step at a time; their number when all are over."""
    for index, step in enumerate(load):
        if seconds < step.seconds:
            return index
        seconds -= step.seconds
    return len(load)


def until(load: Sequence[Step], index: int, seconds: float) -> float:
    """Seconds from then on in which the chat with this index goes on: then it is given up."""
    left = -seconds
    for step in load:
        left += step.seconds
        if left > 0 and index >= step.chats:
            return left - step.seconds
    return left


def play(
    url: str, load: Sequence[Step], name: object, look: Callable[[], Mapping[str, float]]
) -> list[Span]:
    """Put the load on a server.

    Args:
        name: of the words that are said.
        look: the server's metrics.

    Raises:
        StreamError, aiohttp.ClientError: a chat was not answered.
    """
    return asyncio.run(_play(url, load, name, look))


async def _play(
    url: str, load: Sequence[Step], name: object, look: Callable[[], Mapping[str, float]]
) -> list[Span]:
    streams, looks = list[Stream](), list[tuple[float, Mapping[str, float]]]()
    began = time.perf_counter()

    async def user(http: Any, index: int) -> None:
        number = 0
        while (step := at(load, time.perf_counter() - began)) < len(load):
            if index >= load[step].chats:
                await asyncio.sleep(0.1)
                continue
            ask = next(workload.conversation(TENANT, 0, f"{name} {index}", number))
            streams.append(Stream(time.perf_counter(), ask.tokens))
            with suppress(TimeoutError):
                async with asyncio.timeout(until(load, index, time.perf_counter() - began)):
                    await read(http, url, ask.body("default", **COUNTED), streams[-1])
            number += 1

    async def watch() -> None:
        while at(load, time.perf_counter() - began) < len(load):
            looks.append((time.perf_counter(), await asyncio.to_thread(look)))
            await asyncio.sleep(SPAN - (time.perf_counter() - began) % SPAN)

    async with session() as http, asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        for index in range(max(step.chats for step in load)):
            tasks.create_task(user(http, index))
    gaps = [gap for stream in streams for gap in _gaps(stream)]
    return [_span(load, began, before, after, gaps) for before, after in pairwise(looks)]


class Gap(NamedTuple):
    """When a chunk with text came, how long after the one before it, and tokens since."""

    when: float
    seconds: float
    tokens: int


def _gaps(stream: Stream) -> list[Gap]:
    now, found = stream.first or 0.0, []
    for seconds, (before, after) in zip(stream.gaps, pairwise(stream.counts), strict=True):
        now += seconds
        found.append(Gap(now, seconds, after - before))
    return found


def _span(
    load: Sequence[Step],
    began: float,
    before: tuple[float, Mapping[str, float]],
    after: tuple[float, Mapping[str, float]],
    gaps: Sequence[Gap],
) -> Span:
    mine = [gap for gap in gaps if before[0] <= gap.when < after[0]]
    tokens = sum(gap.tokens for gap in mine)

    def gained(name: str) -> float:
        return after[1].get(name, 0.0) - before[1].get(name, 0.0)

    def mean(total: str, count: str) -> float | None:
        return gained(total) / gained(count) if gained(count) else None

    return Span(
        seconds=after[0] - began,
        step=at(load, before[0] - began),
        tpot=sum(gap.seconds for gap in mine) / tokens if tokens else None,
        tokens=tokens,
        unique=mean("oea_unique_experts_sum", "oea_unique_experts_count"),
        mass_kept=mean("oea_kept_router_mass_total", "oea_routed_tokens_total"),
        rung=int(after[1].get("oea_controller_rung", 0)),
        saturated=bool(after[1].get("oea_controller_saturated", 0)),
    )
