"""Folders that a server writes to, taken from it while it runs: filled up, or turned read-only."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from loadtest.chaos import mounts
from loadtest.chaos.arena import DEADLINE, PROMPTS, TOKENS, Arena, body, server
from loadtest.chaos.outcome import Outcome, Seen, skipped
from loadtest.client import chat, session
from oea_server.client.server import Server

ROOM = 64 * 1024
"""KiB of the file system that a folder lies on."""
CACHES = (
    *(
        "SGLANG_CACHE_DIR",
        "TORCHINDUCTOR_CACHE_DIR",
        "TRITON_CACHE_DIR",
        "TORCH_EXTENSIONS_DIR",
        "XDG_CACHE_HOME",
    ),
    *("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "HF_HOME", "FLASHINFER_WORKSPACE_BASE"),
)
POLICIES = ("oea", "shadow", "pruned", "vanilla")
COUNTED = "oea_decode_batch_size_count"
CATCH_UP = 6.0
"""Seconds in which all is shown that was counted meanwhile."""
PATIENCE = 240.0
"""Seconds for all of it, on a busy machine."""
QUIET = 2
"""Tracebacks that one trouble may leave in the log: of what goes on every second, not one a
second."""


async def temporary() -> Outcome:
    """The folder for temporary files; the metrics lie elsewhere."""
    return await _taken("TMPDIR full, then read-only", ("TMPDIR",), ("full", "read-only"))


async def caches() -> Outcome:
    """All that compilers keep, with nothing in it at the start."""
    return await _taken("caches full, then read-only", CACHES, ("full", "read-only"))


async def metrics() -> Outcome:
    """The metrics' folder: read-only, as a file system after an error; what it is like full is a
    fault of its own."""
    return await _taken("metrics' folder read-only", ("PROMETHEUS_MULTIPROC_DIR",), ("read-only",))


async def _taken(name: str, variables: Sequence[str], ways: Sequence[str]) -> Outcome:
    if why := mounts.missing():
        return skipped(name, why)
    with (
        mounts.disk(ROOM) as place,
        tempfile.TemporaryDirectory(prefix="loadtest-metrics-") as elsewhere,
    ):
        environment = {"PROMETHEUS_MULTIPROC_DIR": elsewhere} | {
            each: str(place / each.lower()) for each in variables
        }
        for each in variables:
            (place / each.lower()).mkdir()
        with server(environment=environment, command=mounts.private()) as running:
            arena = Arena(running, None, None)
            await arena.learn()
            return await arena.bear(
                name,
                functools.partial(_serve, place=place, ways=ways),
                alone=True,
                deadline=PATIENCE,
            )


async def _serve(arena: Arena, place: Path, ways: Sequence[str]) -> Seen:
    """Every policy in turn, while the folder is taken and after it was given back."""
    wrong = list[str]()
    mark = arena.running.log.stat().st_size
    for way in (*ways, "given back"):
        with _way(way, arena.running, place):
            wrong += [f"{way}: {each}" for each in await _each_policy(arena)]
    with arena.running.log.open("rb") as log:
        log.seek(mark)
        tracebacks = log.read().count(b"Traceback (most recent call last)")
    if tracebacks > QUIET * len(ways):
        wrong.append(f"{tracebacks} tracebacks")
    deadline = time.monotonic() + CATCH_UP
    while (counted := await asyncio.to_thread(_counted, arena))[0] != counted[
        1
    ] and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
    if counted[0] != counted[1]:
        wrong.append(f"of {counted[0]:.0f} steps /oea/stats shows {counted[1]:.0f} at the end")
    return Seen(
        f"{len(POLICIES)} policies, chats whole: {', then '.join((*ways, 'given back'))}",
        tuple(wrong),
    )


@contextlib.contextmanager
def _way(way: str, running: Server, place: Path) -> Iterator[None]:
    assert running.process is not None
    if way == "full":
        with mounts.full(place):
            yield
    elif way == "read-only":
        mounts.freeze(running.process.pid, place)
        try:
            yield
        finally:
            mounts.thaw(running.process.pid, place)
    else:
        yield


def _counted(arena: Arena) -> tuple[float, float]:
    """Steps by /metrics, and by /oea/stats, which reads files that are written anew each second."""
    return arena.reader.metrics()[COUNTED], arena.reader.stats()["total"]["steps"]


async def _each_policy(arena: Arena) -> list[str]:
    """What is wrong with answers, knobs and probes under each policy, vanilla last."""
    wrong, texts = list[str](), list[str]()
    counted = await asyncio.to_thread(arena.reader.metrics)
    async with session(timeout=DEADLINE) as http:
        for policy in POLICIES:
            async with http.put(f"{arena.url}/oea/config", json={"policy": policy}) as reply:
                if reply.status != 200:
                    wrong.append(f"policy={policy}: {reply.status}: {(await reply.text())[:80]}")
            streams = await asyncio.gather(
                *(chat(http, arena.url, body(each, TOKENS)) for each in PROMPTS)
            )
            texts = [each.text for each in streams]
        if texts != arena.expected:
            wrong.append("answers changed")
        await asyncio.sleep(arena.reader.settle)
        now = await asyncio.to_thread(arena.reader.metrics)
        if now[COUNTED] <= counted[COUNTED]:
            wrong.append("/metrics stands still")
        for path in ("/health", "/metrics", "/oea/stats", "/oea"):
            async with http.get(arena.url + path) as reply:
                if reply.status != 200:
                    wrong.append(f"{path}: {reply.status}")
    return wrong
