"""Once a second, off the step's path: device counters into Prometheus, and into a snapshot for /oea/stats."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from prometheus_client import Histogram

from oea_server.observe import snapshot
from oea_server.observe.metrics import Metrics, observe_counts
from oea_server.routing.tally import MASS_UNIT, SUMS, Tally

logger = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two reports."""


class Counted(NamedTuple):
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


class Options(NamedTuple):
    first_stage: bool = True
    """Whether to report the steps themselves; later pipeline stages run the same steps through other
    layers, and report only those."""
    per_layer: bool = False
    """Whether each layer gets series of its own."""
    folder: Path | None = None
    """Where to put snapshots."""


ALONE = Options()


class Reporter(threading.Thread):
    """Copies what was counted since the last time into the metrics."""

    def __init__(self, metrics: Metrics, counted: Counted, options: Options = ALONE) -> None:
        super().__init__(name="oea-reporter", daemon=True)
        self._metrics = metrics
        self._counted = counted
        self._options = options
        # A stream of its own: a copy must not queue behind the step that runs.
        on_gpu = counted.tally.data.is_cuda
        self._stream = torch.cuda.Stream(counted.tally.data.device) if on_gpu else None
        self._before = _read(counted.tally) * 0
        self._shadow_before = _read(counted.shadow) * 0
        self._bypassed_before: Counter[str] = Counter()
        self._state: dict[str, Any] = {}
        self._steps, self._step_tokens, self._step_seconds = 0, 0, 0.0
        sizes = [counted.expert_bytes.get(layer, 0) for layer in counted.tally.row]
        self._expert_bytes = torch.tensor(sizes, dtype=torch.int64)
        if counted.tally.ranks > 1:
            metrics.add_ranks()
        if options.per_layer:
            metrics.add_layers()

    def run(self) -> None:
        while True:
            try:
                self.report()
            except Exception:
                logger.exception("OEA: one report failed; serving goes on")
            time.sleep(INTERVAL)

    def report(self) -> None:
        """Report once. Touches no device while nothing was counted."""
        changed = self._report_state()
        steps = self._counted.read_steps()
        if steps:
            self._report_steps(steps)
            with torch.cuda.stream(self._stream):  # does nothing without one
                self._report_experts()
        if (bypassed := Counter(self._counted.bypassed)) != self._bypassed_before and self._options.first_stage:
            for reason, times in (bypassed - self._bypassed_before).items():
                self._metrics.bypassed.labels(reason=reason).inc(times)
            self._bypassed_before, changed = bypassed, True
        if self._options.folder is not None and (steps or changed):
            snapshot.write(self._options.folder, self._snapshot())

    def _report_state(self) -> bool:
        state = self._counted.read_state()
        if state == self._state:
            return False
        self._metrics.set_state(state, self._state)
        self._state = state
        return True

    def _report_steps(self, steps: list[tuple[int, float]]) -> None:
        self._steps += len(steps)
        self._step_tokens += sum(batch for batch, _ in steps)
        self._step_seconds += sum(seconds for _, seconds in steps)
        if self._options.first_stage:
            observe_counts(self._metrics.batch_size, Counter(float(batch) for batch, _ in steps).items())
            observe_counts(self._metrics.step_seconds, ((seconds, 1) for _, seconds in steps))

    def _report_experts(self) -> None:
        metrics, counted = self._metrics, self._counted
        # a copy may fall between the two halves of a sum that goes down and up again
        after = torch.maximum(_read(counted.tally), self._before)
        fresh, self._before = after - self._before, after
        self._report_bytes(fresh)
        if self._options.per_layer:
            for layer, mine in zip(counted.tally.row, fresh, strict=True):
                unique, _, vanilla, sums = _parts(mine)
                experts = int(_experts(unique)), int(_experts(vanilla))
                metrics.observe_layer(layer, int(unique.sum()), *experts, _mass_kept(sums))
        unique, busiest, vanilla, sums = _parts(fresh.sum(dim=0))
        _add(metrics.unique_experts, unique)
        _add(metrics.vanilla_unique_experts, vanilla)
        if metrics.busiest_rank is not None:
            _add(metrics.busiest_rank, busiest)
        tokens, assignments, piggybacked, mass = sums.tolist()
        metrics.tokens.inc(tokens)
        metrics.assignments.inc(assignments)
        metrics.piggybacked.inc(piggybacked)
        metrics.kept_mass.inc(mass / MASS_UNIT)
        if tokens:
            metrics.mass_kept.set(_mass_kept(sums))
        after = torch.maximum(_read(counted.shadow), self._shadow_before)
        fresh, self._shadow_before = after - self._shadow_before, after
        unique, _, _, sums = _parts(fresh.sum(dim=0))
        _add(metrics.shadow_unique_experts, unique)
        if sums[0]:
            metrics.shadow_mass_kept.set(_mass_kept(sums))

    def _report_bytes(self, fresh: torch.Tensor) -> None:
        unique, _, vanilla, _ = _parts(fresh)
        read = int(_experts(unique) @ self._expert_bytes)
        would = int(_experts(vanilla) @ self._expert_bytes)
        self._metrics.bytes_read.inc(read)
        self._metrics.bytes_saved.inc(max(0, would - read))  # random routing reads more than vanilla

    def _snapshot(self) -> snapshot.Snapshot:
        first = self._options.first_stage
        return snapshot.Snapshot(
            t=time.time(),
            state=self._state,
            layers=list(self._counted.tally.row),
            ranks=self._counted.tally.ranks,
            expert_bytes=self._expert_bytes.tolist(),
            steps=self._steps if first else 0,
            step_tokens=self._step_tokens if first else 0,
            step_seconds=self._step_seconds if first else 0.0,
            bypassed=dict(self._bypassed_before) if first else {},
            tally=self._before.numpy(),
            shadow=self._shadow_before.numpy(),
        )


def _read(tally: Tally) -> torch.Tensor:
    """A copy on the host, [layers, 3 (N + 1) + 4]."""
    return tally.data.clone() if tally.data.device.type == "cpu" else tally.data.cpu()


def _parts(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """unique, busiest and vanilla histograms [..., N + 1] and sums [..., 4] (`Tally`)."""
    bins = (counts.shape[-1] - len(SUMS)) // 3
    unique, busiest, vanilla, sums = counts.split([bins, bins, bins, len(SUMS)], dim=-1)
    return unique, busiest, vanilla, sums


def _experts(histogram: torch.Tensor) -> torch.Tensor:
    """Experts in all observations of a histogram [..., N + 1] together."""
    return histogram @ torch.arange(histogram.shape[-1])


def _mass_kept(sums: torch.Tensor) -> float:
    tokens = int(sums[SUMS.index("tokens")])
    return float(sums[SUMS.index("mass_kept")]) / MASS_UNIT / tokens if tokens else 1.0


def _add(histogram: Histogram, counts: torch.Tensor) -> None:
    values = counts.nonzero().flatten().tolist()
    observe_counts(histogram, ((float(value), int(counts[value])) for value in values))
