"""What the layers of the running forward pass may know, and the numbers a CUDA graph reads."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch

MAX_UNREAD_STEPS = 100_000
"""Timings kept if nobody reads them; about half an hour of decoding."""


@dataclass(frozen=True, slots=True)
class Step:
    """One decode step, as the host knows it."""

    batch: int
    """Real tokens; while capturing, the size of the graph."""
    counted: bool
    """False for warm-up, capture and health checks."""
    capturing: bool = False
    of_ranks: tuple[int, ...] = ()
    """Tokens of each rank, where the rows of several come together before a router (`engine.gathered`), which sum up to
    `batch`; empty where it sees its own rank's alone."""


class StepClock:
    """Times decode steps on the device: CUDA events where there is a GPU (no waiting), else a clock."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._done: deque[tuple[int, Any, Any]] = deque(maxlen=MAX_UNREAD_STEPS)

    def now(self) -> Any:
        """A mark on the current stream."""
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def lap(self, batch: int, start: Any) -> None:
        """Keep the time since `start` as a step of `batch` tokens."""
        self._done.append((batch, start, self.now()))

    def read(self) -> list[tuple[int, float]]:
        """(batch, seconds) of the finished steps since the last read."""
        steps = []
        while self._done:
            batch, start, end = self._done[0]
            if self._cuda and not end.query():
                break
            self._done.popleft()
            steps.append((batch, start.elapsed_time(end) / 1e3 if self._cuda else end - start))
        return steps
