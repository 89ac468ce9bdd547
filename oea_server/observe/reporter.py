"""Once a second, off the step's path: device counters into Prometheus."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable

import torch

from oea_server.observe.metrics import Metrics, observe_counts
from oea_server.routing.tally import Tally

logger = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two reports."""


class Reporter(threading.Thread):
    """Copies what was counted since the last time into the metrics.

    Args:
        read_steps: (batch, seconds) of the steps since the last call.
        first_stage: whether to report the steps themselves; later pipeline stages run the same
            steps through other layers, and report only those.
    """

    def __init__(
        self,
        metrics: Metrics,
        tally: Tally,
        read_steps: Callable[[], list[tuple[int, float]]],
        first_stage: bool = True,
    ) -> None:
        super().__init__(name="oea-reporter", daemon=True)
        self._metrics = metrics
        self._tally = tally
        self._read_steps = read_steps
        self._first_stage = first_stage
        # A stream of its own: a copy must not queue behind the step that runs.
        cuda = tally.unique.is_cuda
        self._stream = torch.cuda.Stream(tally.unique.device) if cuda else None
        self._unique = torch.zeros(tally.unique.shape[1], dtype=torch.int64)
        self._busiest = torch.zeros_like(self._unique)
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
        """Report once. Does nothing, and touches no device, while nothing was counted."""
        steps = self._read_steps()
        if not steps:
            return
        if self._first_stage:
            observe_counts(self._metrics.batch_size, Counter(float(batch) for batch, _ in steps).items())
            observe_counts(self._metrics.step_seconds, ((seconds, 1) for _, seconds in steps))
        self._unique = self._add(self._metrics.unique_experts, self._tally.unique, self._unique)
        if self._metrics.busiest_rank is not None:
            self._busiest = self._add(self._metrics.busiest_rank, self._tally.busiest, self._busiest)

    def _add(self, histogram: object, counters: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        with torch.cuda.stream(self._stream):  # does nothing without one
            after = counters.sum(dim=0).cpu()
        fresh = after - before
        values = fresh.nonzero().flatten().tolist()
        observe_counts(histogram, ((float(value), int(fresh[value])) for value in values))  # type: ignore[arg-type]
        return after
