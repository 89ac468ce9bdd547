"""Once a second, off the step's path: device counters into Prometheus."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable

import torch
from prometheus_client import Histogram

from oea_server.observe.metrics import Metrics, observe_counts
from oea_server.routing.tally import MASS_UNIT, SUMS, Tally

logger = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two reports."""


class Reporter(threading.Thread):
    """Copies what was counted since the last time into the metrics.

    Args:
        read_steps: (batch, seconds) of the steps since the last call.
        read_state: whether routing is ours, and why not.
        first_stage: whether to report the steps themselves; later pipeline stages run the same
            steps through other layers, and report only those.
    """

    def __init__(
        self,
        metrics: Metrics,
        tally: Tally,
        read_steps: Callable[[], list[tuple[int, float]]],
        read_state: Callable[[], tuple[bool, str]],
        first_stage: bool = True,
    ) -> None:
        super().__init__(name="oea-reporter", daemon=True)
        self._metrics = metrics
        self._tally = tally
        self._read_steps = read_steps
        self._read_state = read_state
        self._first_stage = first_stage
        # A stream of its own: a copy must not queue behind the step that runs.
        self._stream = torch.cuda.Stream(tally.data.device) if tally.data.is_cuda else None
        self._before = torch.zeros(tally.data.shape[1], dtype=torch.int64)
        if tally.ranks > 1:
            metrics.add_ranks()

    def run(self) -> None:
        wait = threading.Event()
        while not wait.wait(INTERVAL):
            try:
                self.report()
            except Exception:
                logger.exception("OEA: one report failed; serving goes on")

    def report(self) -> None:
        """Report once. Touches no device while nothing was counted."""
        metrics = self._metrics
        metrics.set_router_active(*self._read_state())
        steps = self._read_steps()
        if not steps:
            return
        if self._first_stage:
            observe_counts(metrics.batch_size, Counter(float(batch) for batch, _ in steps).items())
            observe_counts(metrics.step_seconds, ((seconds, 1) for _, seconds in steps))
        with torch.cuda.stream(self._stream):  # does nothing without one
            after = self._tally.data.sum(dim=0).cpu()
        # a copy may fall between the two halves of a sum that goes down and up again
        after = torch.maximum(after, self._before)
        fresh, self._before = after - self._before, after
        *histograms, sums = fresh.split([self._tally.num_experts + 1] * 3 + [len(SUMS)])
        _add(metrics.unique_experts, histograms[0])
        _add(metrics.vanilla_unique_experts, histograms[2])
        if metrics.busiest_rank is not None:
            _add(metrics.busiest_rank, histograms[1])
        tokens, assignments, piggybacked, mass_kept = sums.tolist()
        metrics.tokens.inc(tokens)
        metrics.assignments.inc(assignments)
        metrics.piggybacked.inc(piggybacked)
        if tokens:
            metrics.mass_kept.set(mass_kept / MASS_UNIT / tokens)


def _add(histogram: Histogram, counts: torch.Tensor) -> None:
    values = counts.nonzero().flatten().tolist()
    observe_counts(histogram, ((float(value), int(counts[value])) for value in values))
