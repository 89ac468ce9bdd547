"""What the layers of the running forward pass may know, and the numbers a CUDA graph reads."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch

MAX_UNREAD_STEPS = 100_000
"""Timings kept while no reader takes them; about half an hour of decoding."""


@dataclass(frozen=True, slots=True)
class Step:
    """One decode step, as the host knows it."""

    batch: int
    """Real tokens; while capturing, the size of the graph."""
    counted: bool
    """False for warm-up, capture and health checks."""
    capturing: bool = False
    per_request: int = 1
    """Rows of each request, side by side; above 1 its last token and drafts to be verified."""
    tree: bool = False
    """Whether drafts may be branches of a tree (`engine.drafts`)."""
    of_ranks: tuple[int, ...] = ()
    """Rows of each rank that are tokens or drafts, where rows of several ranks come together before
    a router (`engine.gathered`). The numbers sum up to `batch`; empty where a router sees its own
    rank's rows alone."""
    halves: tuple[int, ...] = ()
    """Rows of each half that are tokens or drafts, where SGLang runs the step as two
    (`engine.halves`); empty where the step runs as one."""
    asked: tuple[int, ...] = ()
    """What each request asks of `oea_server.routing.route` (`row_k0`); empty where none does."""

    @property
    def requests(self) -> int:
        """Requests that the rows are of: a schedule is read at this number."""
        return self.batch // self.per_request


class StepClock:
    """Times decode steps on the device: CUDA events where there is a GPU (no waiting), else a
    clock."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._done: deque[tuple[int, Any, Any]] = deque(maxlen=MAX_UNREAD_STEPS)
        self.requests = 0
        """Requests of all steps so far."""

    def now(self) -> Any:
        """A mark on the current stream."""
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def lap(self, step: Step, start: Any) -> None:
        """Keep the time since `start` as a step's."""
        self._done.append((step.batch, start, self.now()))
        self.requests += step.requests

    def read(self) -> list[tuple[int, float]]:
        """(rows, seconds) of the finished steps since the last read."""
        steps = []
        while self._done:
            batch, start, end = self._done[0]
            if self._cuda and not end.query():
                break
            self._done.popleft()
            steps.append((batch, start.elapsed_time(end) / 1e3 if self._cuda else end - start))
        return steps
