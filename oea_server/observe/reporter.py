"""Once a second, off the step's path: device counters into Prometheus, and into a snapshot for
/oea/stats."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from prometheus_client import Histogram

from oea_server.observe import parts, snapshot, tier_metrics
from oea_server.observe.metrics import Metrics, observe_counts
from oea_server.observe.quiet import Failures
from oea_server.routing.tally import MASS_UNIT, REJECTED_EXPERTS, Tally

logger = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two reports."""


class Sources(NamedTuple):
    """What a scheduler process counts, and where to read it."""

    tally: Tally
    shadow: Tally
    """What a policy that is only counted would have woken."""
    read_steps: Callable[[], list[tuple[int, float]]]
    """(batch, seconds) of the steps since the last call."""
    bypassed: Mapping[str, int]
    """Forward passes by the reason why the model's own top k ran in them."""
    expert_bytes: Mapping[int, int]
    """Bytes of one expert's weights, by layer."""
    read_state: Callable[[], dict[str, Any]]
    """`oea_server.engine.control.state_of`."""
    capturing: AbstractContextManager[Any] = nullcontext()
    """Entered before a device is touched: `oea_server.engine.captures.ongoing` waits for a graph's
    capture."""
    read_requests: Callable[[], int] = int
    """Requests of all steps so far; fewer than their rows where drafts are verified."""
    read_tiers: Callable[[], dict[str, tuple[int, int, int]] | None] = lambda: None
    """Of each tier so far: tokens that were looked at, their mass in units of 1 / MASS_UNIT, broken
    promises. None if none was since the last call."""


class Options(NamedTuple):
    first_stage: bool = True
    """Whether to report the steps themselves; later pipeline stages run the same steps through
    other layers, and report only those."""
    per_layer: bool = False
    """Whether each layer gets series of its own."""
    folder: Path | None = None
    """Folder of the snapshots."""
    changes: bool = True
    """Whether to count changes of the configuration: of ranks that take them together, one does."""


ALONE = Options()


class Reporter(threading.Thread):
    """Copies what was counted since the last time into the metrics."""

    def __init__(self, metrics: Metrics, counted: Sources, options: Options = ALONE) -> None:
        super().__init__(name="oea-reporter", daemon=True)
        self._metrics = metrics
        self._counted = counted
        self._options = options
        # A stream of its own: a copy must not queue behind the step that runs.
        on_gpu = counted.tally.data.is_cuda
        self._stream = torch.cuda.Stream(counted.tally.data.device) if on_gpu else None
        self._before = parts.read(counted.tally) * 0
        self._shadow_before = parts.read(counted.shadow) * 0
        self._bypassed_before: Counter[str] = Counter()
        self._state: dict[str, Any] = {}
        self._unwritten = False
        """Whether the snapshot on disk is older than what was counted."""
        self._failures = Failures(logger, "a report failed; serving goes on")
        self._steps, self._step_tokens, self._step_seconds = 0, 0, 0.0
        self._requests = 0
        self._tiers: dict[str, tuple[int, int, int]] = {}
        self._tier_metrics: tier_metrics.Rows | None = None
        if counted.tally.ranks > 1:
            metrics.add_ranks()
        if options.per_layer:
            metrics.add_layers()

    def run(self) -> None:
        if self._stream is not None:
            # else torch would make up for the missing current device with GPU 0, and a context
            # there
            torch.cuda.set_device(self._stream.device)
        while True:
            self._failures.attempt(self.report)
            time.sleep(INTERVAL)

    def report(self) -> None:
        """Report once. Touches no device while nothing was counted, nor while a graph is
        captured."""
        changed = self._report_state()
        with self._counted.capturing:
            steps = self._counted.read_steps()
            with torch.cuda.stream(self._stream):  # does nothing without one
                if steps:
                    self._report_steps(steps)
                    self._report_experts()
                changed = self._report_tiers() or changed
        if (
            bypassed := Counter(self._counted.bypassed)
        ) != self._bypassed_before and self._options.first_stage:
            for reason, times in (bypassed - self._bypassed_before).items():
                self._metrics.bypassed.labels(reason=reason).inc(times)
            self._bypassed_before, changed = bypassed, True
        self._unwritten = self._unwritten or bool(steps) or changed
        if self._options.folder is not None and self._unwritten:
            snapshot.write(self._options.folder, self._snapshot())
            self._unwritten = False

    def _report_state(self) -> bool:
        state = self._counted.read_state()
        if state == self._state:
            return False
        self._metrics.set_state(state, self._state if self._options.changes else state)
        self._state = state
        return True

    def _report_steps(self, steps: list[tuple[int, float]]) -> None:
        self._steps += len(steps)
        self._step_tokens += sum(batch for batch, _ in steps)
        self._step_seconds += sum(seconds for _, seconds in steps)
        before, self._requests = self._requests, self._counted.read_requests()
        if self._options.first_stage:
            self._metrics.step_requests.inc(self._requests - before)
            observe_counts(
                self._metrics.batch_size, Counter(float(batch) for batch, _ in steps).items()
            )
            observe_counts(self._metrics.step_seconds, ((seconds, 1) for _, seconds in steps))

    def _report_experts(self) -> None:
        metrics, counted = self._metrics, self._counted
        # a copy may fall between the two halves of a sum that goes down and up again
        after = np.maximum(parts.read(counted.tally), self._before)
        fresh, self._before = parts.split(after - self._before), after
        self._report_bytes(fresh)
        if self._options.per_layer:
            self._report_layers(fresh)
        _add(metrics.unique_experts, fresh.unique)
        _add(metrics.vanilla_unique_experts, fresh.vanilla)
        if metrics.busiest_rank is not None and metrics.vanilla_busiest_rank is not None:
            _add(metrics.busiest_rank, fresh.busiest)
            _add(metrics.vanilla_busiest_rank, fresh.vanilla_busiest)
        sums = fresh.sums.sum(axis=0)
        tokens, assignments, piggybacked, mass = sums.tolist()
        metrics.accepted_rows.inc(parts.accepted_rows(fresh.verified))
        metrics.rejected_experts.inc(int(fresh.verified[:, REJECTED_EXPERTS].sum()))
        metrics.tokens.inc(tokens)
        metrics.assignments.inc(assignments)
        metrics.piggybacked.inc(piggybacked)
        metrics.kept_mass.inc(mass / MASS_UNIT)
        if (kept := parts.mass_kept(sums)) is not None:
            metrics.mass_kept.set(kept)
        after = np.maximum(parts.read(counted.shadow), self._shadow_before)
        fresh, self._shadow_before = parts.split(after - self._shadow_before), after
        _add(metrics.shadow_unique_experts, fresh.unique)
        if (kept := parts.mass_kept(fresh.sums.sum(axis=0))) is not None:
            metrics.shadow_mass_kept.set(kept)

    def _report_tiers(self) -> bool:
        if (counted := self._counted.read_tiers()) is None:
            return False
        self._tiers = counted
        if self._tier_metrics is None:
            self._tier_metrics = tier_metrics.Rows()
        self._tier_metrics.add(counted)
        return True

    def _report_layers(self, fresh: parts.Parts) -> None:
        unique, vanilla = (parts.experts(each).tolist() for each in (fresh.unique, fresh.vanilla))
        columns = (
            fresh.unique.sum(axis=-1).tolist(),
            unique,
            vanilla,
            *fresh.sums.T[[0, -1]].tolist(),
        )
        for layer, *mine in zip(self._counted.tally.row, *columns, strict=True):
            self._metrics.observe_layer(layer, *mine)

    def _report_bytes(self, fresh: parts.Parts) -> None:
        sizes = np.array(self._expert_bytes(), dtype=np.int64)
        read, would = (int(parts.experts(each) @ sizes) for each in (fresh.unique, fresh.vanilla))
        self._metrics.bytes_read.inc(read)
        # random routing reads more than vanilla
        self._metrics.bytes_saved.inc(max(0, would - read))

    def _expert_bytes(self) -> list[int]:
        """Of each layer that is counted; another once its weights are loaded."""
        return [self._counted.expert_bytes.get(layer, 0) for layer in self._counted.tally.row]

    def _snapshot(self) -> snapshot.Snapshot:
        first = self._options.first_stage
        return snapshot.Snapshot(
            at=time.monotonic(),
            state=self._state,
            layers=list(self._counted.tally.row),
            ranks=self._counted.tally.ranks,
            expert_bytes=self._expert_bytes(),
            steps=self._steps if first else 0,
            step_tokens=self._step_tokens if first else 0,
            step_seconds=self._step_seconds if first else 0.0,
            step_requests=self._requests if first else 0,
            bypassed=dict(self._bypassed_before) if first else {},
            tiers={tier: list(counted) for tier, counted in self._tiers.items()},
            tally=self._before,
            shadow=self._shadow_before,
        )


def _add(histogram: Histogram, by_layer: parts.Counts) -> None:
    """Observe what a histogram of each layer, [layers, N + 1], counted."""
    counts = by_layer.sum(axis=0)
    observe_counts(
        histogram, ((float(value), int(counts[value])) for value in np.flatnonzero(counts))
    )
