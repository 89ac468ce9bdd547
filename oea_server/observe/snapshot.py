"""What one scheduler process has counted, as a file that the HTTP process reads.

Once a second, beside prometheus_client's own files: so a page that is looked at costs the schedulers
nothing, and one that is busy with a long prompt still answers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from oea_server.observe.parts import Counts

SUFFIX = ".oea"


class Snapshot(NamedTuple):
    """Counted since the start."""

    t: float
    """Unix seconds."""
    state: dict[str, Any]
    """`oea_server.engine.control.state_of`."""
    layers: list[int]
    ranks: int
    expert_bytes: list[int]
    """One expert's, by layer."""
    steps: int
    step_tokens: int
    step_seconds: float
    bypassed: dict[str, int]
    tally: Counts
    """[layers, 4 (N + 1) + 4], as `oea_server.routing.tally.Tally.data`."""
    shadow: Counts
    """The same for what the shadow policy would have chosen; its N may be another one (EPLB)."""


def folder() -> Path | None:
    """Where snapshots lie; None for a server without metrics."""
    named = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(named) if named else None


def write(place: Path, snapshot: Snapshot) -> None:
    """Write this process's snapshot, at once for whoever reads it."""
    arrays = (snapshot.tally, snapshot.shadow)
    head = snapshot._replace(tally=None, shadow=None)._asdict() | {"shapes": [array.shape for array in arrays]}  # type: ignore[arg-type]
    path = place / f"{os.getpid()}{SUFFIX}"
    scratch = path.with_suffix(".new")
    with scratch.open("wb") as file:
        file.write(json.dumps(head).encode() + b"\n")
        for array in arrays:
            file.write(np.ascontiguousarray(array).tobytes())
    scratch.replace(path)


def read_all(place: Path, since: float) -> Iterator[Snapshot]:
    """The snapshots of a server's schedulers that were written after `since` (unix seconds): its start,
    where an earlier one may have left some."""
    for path in sorted(place.glob(f"*{SUFFIX}")):
        head, _, body = path.read_bytes().partition(b"\n")
        values = json.loads(head)
        shapes = values.pop("shapes")
        if values["t"] < since:
            continue
        numbers = np.frombuffer(body, dtype=np.int64)
        sizes = [rows * columns for rows, columns in shapes]
        values["tally"] = numbers[: sizes[0]].reshape(shapes[0])
        values["shadow"] = numbers[sizes[0] :].reshape(shapes[1])
        yield Snapshot(**values)
