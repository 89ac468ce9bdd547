"""A tally on the host, in numpy: torch would start its threads for sums this small, in a scheduler
that needs them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from oea_server.routing.tally import ACCEPTED_ROWS, HISTOGRAMS, MASS_UNIT, SUMS, VERIFIED, Tally

Counts = npt.NDArray[np.int64]


class Parts(NamedTuple):
    """`oea_server.routing.tally.Tally.data`, of some or of all layers."""

    unique: Counts
    """[..., N + 1]: steps that woke so many experts."""
    busiest: Counts
    vanilla: Counts
    vanilla_busiest: Counts
    sums: Counts
    """[..., 4], as `SUMS`."""
    verified: Counts
    """[..., 2], as `VERIFIED`."""


def split(counts: Counts) -> Parts:
    """[..., 2 + 4 (N + 1) + 4] in its parts."""
    first, last = len(VERIFIED), counts.shape[-1] - len(SUMS)
    unique, busiest, vanilla, vanilla_busiest = np.split(
        counts[..., first:last], HISTOGRAMS, axis=-1
    )
    return Parts(unique, busiest, vanilla, vanilla_busiest, counts[..., last:], counts[..., :first])


def read(tally: Tally) -> Counts:
    """A copy of all counters, [layers, 2 + 4 (N + 1) + 4]; on the current stream, if they are on a
    GPU."""
    on_host: Counts = (
        tally.data.numpy().copy() if tally.data.device.type == "cpu" else tally.data.cpu().numpy()
    )
    return on_host


def experts(histogram: Counts) -> Counts:
    """Experts in all observations together. [..., N + 1] -> [...]."""
    total: Counts = histogram @ np.arange(histogram.shape[-1])
    return total


def accepted_rows(verified: Counts) -> int:
    """Accepted rows of [layers, 2]: every layer knows of the same rows; of a pipeline, its last
    stage's."""
    return int(verified[:, ACCEPTED_ROWS].max(initial=0))


def mass_kept(sums: Counts) -> float | None:
    """Mean share of vanilla's router mass that was kept, by sums of some layers, [4]; None without
    tokens."""
    tokens = int(sums[SUMS.index("tokens")])
    return float(sums[SUMS.index("mass_kept")]) / MASS_UNIT / tokens if tokens else None
