"""What a server holds on to: memory, threads and file handles of its processes, requests and KV
slots."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]

from oea_server.client.ask import ask

MIB = 1 << 20
TITLES = {"sglang::scheduler": "scheduler", "sglang::detokenizer": "detokenizer"}
EVERY = 1.0
"""Seconds between two samples of memory."""
PATIENCE = 30.0
"""Seconds in which a server has to become idle: keep-alive connections go after 5."""

SPARE_HANDLES, SPARE_THREADS = 2, 8
"""What may come and go: a connection that is just being closed; a thread pool that fills up to its
bound."""


def processes(pid: int) -> dict[str, psutil.Process]:
    """A server's processes by what they do: http (the launcher), scheduler, scheduler_TP1,
    detokenizer."""
    launcher = psutil.Process(pid)
    found = {"http": launcher}
    for child in launcher.children(recursive=True):
        try:
            title = " ".join(child.cmdline()).strip()
        except psutil.Error:
            continue
        for start, role in TITLES.items():
            if title.startswith(start):
                found[role + title.removeprefix(start)] = child
    return found


def own_memory(process: psutil.Process) -> float:
    """Resident memory that is no file's, MiB: the kernel takes pages of files back where it needs
    room, and they are no part of what a process piles up."""
    info = process.memory_info()
    return float(info.rss - info.shared) / MIB


class Sample(NamedTuple):
    """Memory of its own, MiB by process, after so many requests."""

    requests: int
    seconds: float
    rss: dict[str, float]


class Memory:
    """Samples memory once a second while in a with block.

    Args:
        done: requests that have ended so far.
    """

    def __init__(self, pid: int, done: Callable[[], int]) -> None:
        self.samples: list[Sample] = []
        self._processes = processes(pid)
        self._done = done
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        start = time.monotonic()
        while not self._stop.wait(EVERY):
            try:
                rss = {role: own_memory(process) for role, process in self._processes.items()}
            except psutil.NoSuchProcess:
                return
            self.samples.append(Sample(self._done(), time.monotonic() - start, rss))


class Slope(NamedTuple):
    """Memory over requests, by least squares.

    Args:
        per_1000: MiB per 1000 requests.
        error: its standard error, which takes samples for independent: they are not, so it is a
            lower bound.
    """

    per_1000: float
    error: float


def slope(counts: Sequence[float], values: Sequence[float]) -> Slope:
    """Fit a line. Three samples at least.

    Raises:
        statistics.StatisticsError: all samples are of the same request.
    """
    line = statistics.linear_regression(counts, values)
    left = [
        value - line.slope * count - line.intercept
        for count, value in zip(counts, values, strict=True)
    ]
    middle = statistics.fmean(counts)
    spread = sum((count - middle) ** 2 for count in counts)
    variance = sum(each**2 for each in left) / (len(left) - 2)
    return Slope(line.slope * 1000, (variance / spread) ** 0.5 * 1000)


class Held(NamedTuple):
    """What an idle server holds, its cache emptied.

    Args:
        handles, threads: by process.
        load: requests that run or wait and tokens in use, as the scheduler counts them.
    """

    handles: dict[str, int]
    threads: dict[str, int]
    load: dict[str, int]
    rss: dict[str, float]


LOAD = ("num_running_reqs", "num_waiting_reqs", "num_used_tokens")


def load(url: str, key: str | None = None) -> dict[str, int]:
    """What the scheduler says that it is busy with."""
    reply = ask("GET", f"{url}/v1/loads", key, timeout=30)
    reply.raise_for_status()
    loads: list[Mapping[str, Any]] = reply.json()["loads"]
    return {name: sum(int(each.get(name, 0)) for each in loads) for name in LOAD}


def held(url: str, pid: int, key: str | None = None, admin_key: str | None = None) -> Held:
    """Wait until the server is idle, empty its cache, and look. What is not idle after half a
    minute is leaked."""
    deadline = time.monotonic() + PATIENCE
    while any(load(url, key).values()) and time.monotonic() < deadline:
        time.sleep(0.5)
    ask("POST", f"{url}/flush_cache", admin_key or key, timeout=30)
    time.sleep(6.0)  # connections that nobody uses are closed after 5
    found = processes(pid)
    return Held(
        {role: process.num_fds() for role, process in found.items()},
        {role: process.num_threads() for role, process in found.items()},
        load(url, key),
        {role: own_memory(process) for role, process in found.items()},
    )


def leaks(before: Held, after: Held) -> list[str]:
    """What is more than before, one line each."""
    found = [
        f"{role}: {kind} {earlier[role]} -> {later.get(role, 0)}"
        for kind, allowance, earlier, later in (
            ("handles", SPARE_HANDLES, before.handles, after.handles),
            ("threads", SPARE_THREADS, before.threads, after.threads),
        )
        for role in earlier
        if later.get(role, 0) > earlier[role] + allowance
    ]
    return found + [f"{name} {number}" for name, number in after.load.items() if number]
