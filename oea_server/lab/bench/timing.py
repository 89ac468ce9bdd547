"""Laps: variants take turns within one process, and medians and quartiles come out.

On a GPU a variant is a CUDA graph between two events; on the CPU it is a call between two readings
of the clock. The GPU half has not yet run on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from rich.progress import track

Call = Callable[[], Any]

WARM_UP_ROUNDS = 2
GPU_WARM_UP_CALLS = 3
"""Before a capture: kernels are compiled, autotuned and their tables made."""


def pick_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def capture(call: Call, device: torch.device, times: int = 1) -> Call:
    """Make a call ready for laps: warm, and on a GPU recorded as one CUDA graph of `times` calls.

    What the call reads and writes must stay where it is.

    Returns:
        On a GPU the graph's replay; on the CPU a function that calls `times` times.
    """
    if device.type != "cuda":
        call()
        return call if times == 1 else lambda: [call() for _ in range(times)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(GPU_WARM_UP_CALLS):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            call()
    return graph.replay


def laps(device: torch.device, calls: Sequence[Call]) -> list[float]:
    """Seconds of each call, run one after the other.

    On a GPU everything is queued at once and only then waited for. Let the first call be long
    enough (a read of memory) for the queue to fill. Else launch latency is measured with the
    second.
    """
    if device.type != "cuda":
        marks = [time.perf_counter()]
        for call in calls:
            call()
            marks.append(time.perf_counter())
        return [after - before for before, after in pairwise(marks)]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(len(calls) + 1)]
    events[0].record()
    for call, event in zip(calls, events[1:], strict=True):
        call()
        event.record()
    events[-1].synchronize()
    return [before.elapsed_time(after) * 1e-3 for before, after in pairwise(events)]


def turns(names: Sequence[str], repeats: int) -> Iterator[tuple[int, list[str]]]:
    """(repetition, order) of interleaved variants: there and back, then from the next one on. No
    variant is always first, or always after the same one.

    Negative repetitions warm up and are not to be kept.
    """
    for repetition in range(-WARM_UP_ROUNDS, repeats):
        first = repetition // 2 % len(names)
        order = [*names[first:], *names[:first]]
        yield repetition, order[::-1] if repetition % 2 else order


def shown_turns(
    names: Sequence[str], repeats: int, description: str
) -> Iterable[tuple[int, list[str]]]:
    """`turns`, with a bar that shows how far they are."""
    return track(turns(names, repeats), total=WARM_UP_ROUNDS + repeats, description=description)
