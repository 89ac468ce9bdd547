"""What one scheduler process has counted, as a file that the HTTP process reads.

Once a second, beside prometheus_client's own files: so a page that is looked at costs the
schedulers nothing, and one that is busy with a long prompt still answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt, ValidationError

from oea_server.observe import files
from oea_server.observe.parts import Counts
from oea_server.routing.tally import HISTOGRAMS, SUMS, VERIFIED

SUFFIX = ".oea"


class Snapshot(NamedTuple):
    """Counted since the start."""

    at: float
    """Seconds of the monotonic clock (`time.monotonic`), the same for all processes of a
    machine."""
    state: dict[str, Any]
    """`oea_server.engine.control.state_of`."""
    layers: list[int]
    ranks: int
    expert_bytes: list[int]
    """One expert's, by layer."""
    steps: int
    step_tokens: int
    step_seconds: float
    step_requests: int
    bypassed: dict[str, int]
    tiers: dict[str, list[int]]
    """Of each tier: tokens that were looked at, their mass in units of 1 / MASS_UNIT, broken
    promises."""
    tally: Counts
    """[layers, 2 + 4 (N + 1) + 4], as `oea_server.routing.tally.Tally.data`."""
    shadow: Counts
    """As `tally`, for what the shadow policy would have chosen; its N may be another one (EPLB)."""


ARRAYS = ("tally", "shadow")
Shape = tuple[NonNegativeInt, NonNegativeInt]
Bytes = Annotated[int, Field(ge=0, lt=2**63)]


class Head(BaseModel):
    """A file's first line, JSON: a snapshot without its arrays, which follow as they lie in
    memory."""

    model_config = ConfigDict(extra="forbid", strict=True)

    launch: str
    """The name of the folder that it was written to."""
    pid: NonNegativeInt
    """The process that wrote it: of a copy the file's name says another."""
    shapes: tuple[Shape, Shape]
    at: FiniteFloat
    state: dict[str, Any]
    layers: list[NonNegativeInt]
    ranks: Annotated[int, Field(ge=1)]
    expert_bytes: list[Bytes]
    steps: NonNegativeInt
    step_tokens: NonNegativeInt
    step_seconds: FiniteFloat
    step_requests: NonNegativeInt
    bypassed: dict[str, NonNegativeInt]
    tiers: dict[str, Annotated[list[Bytes], Field(min_length=3, max_length=3)]]


class Found(NamedTuple):
    snapshots: list[Snapshot]
    unread: dict[str, str]
    """Files that are none of this start's snapshots: path -> why."""


def write(place: Path, snapshot: Snapshot) -> None:
    """Write the process's snapshot, so that a reader sees the old one or the new one whole."""
    values = snapshot._asdict()
    arrays = [values.pop(name) for name in ARRAYS]
    head = Head(
        launch=place.name, pid=os.getpid(), shapes=(arrays[0].shape, arrays[1].shape), **values
    )
    path = place / f"{os.getpid()}{SUFFIX}"
    scratch = path.with_suffix(".new")
    with os.fdopen(files.create(scratch), "wb") as file:
        file.write(head.model_dump_json().encode() + b"\n")
        for array in arrays:
            file.write(np.ascontiguousarray(array).tobytes())
    scratch.replace(path)


def read_all(place: Path) -> Found:
    """The snapshots of the schedulers whose folder this is."""
    found = Found([], {})
    for path in sorted(place.glob(f"*{SUFFIX}")):
        try:
            snapshot = parse(files.read(path), place.name, path.stem)
            if found.snapshots and _width(snapshot) != _width(found.snapshots[0]):
                raise ValueError("of another shape than the others")
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            found.unread[str(path)] = str(error)
        else:
            found.snapshots.append(snapshot)
    return found


def parse(content: bytes, launch: str, pid: str) -> Snapshot:
    """A file's content.

    Raises:
        ValueError: it is no snapshot, or another start's, or another process's.
    """
    line, _, body = content.partition(b"\n")
    try:
        head = Head.model_validate_json(line)
    except ValidationError:
        raise ValueError("no snapshot of this version") from None
    if head.launch != launch:
        raise ValueError("another start's")
    if str(head.pid) != pid:
        raise ValueError("another process's")
    if not _fits(head):
        raise ValueError("its parts do not fit each other")
    sizes = [rows * columns for rows, columns in head.shapes]
    if len(body) != sum(sizes) * np.dtype(np.int64).itemsize:
        raise ValueError("cut short")
    numbers = np.split(np.frombuffer(body, dtype=np.int64), sizes[:1])
    tally, shadow = (each.reshape(shape) for each, shape in zip(numbers, head.shapes, strict=True))
    return Snapshot(
        **head.model_dump(exclude={"launch", "pid", "shapes"}), tally=tally, shadow=shadow
    )


def _fits(head: Head) -> bool:
    """Whether the arrays are [layers, 2 + 4 (N + 1) + 4], and the configuration is one."""
    columns = [
        columns - len(VERIFIED) - len(SUMS)
        for rows, columns in head.shapes
        if rows == len(head.layers)
    ]
    return (
        len(columns) == len(ARRAYS)
        and all(each > 0 and each % HISTOGRAMS == 0 for each in columns)
        and len(head.layers) == len(head.expert_bytes)
        and {"version", "settings", "reason", "model"} <= set(head.state)
    )


def _width(snapshot: Snapshot) -> tuple[int, int]:
    """Counters of a layer: replicas, and the stages of a pipeline, have as many."""
    return snapshot.tally.shape[1], snapshot.shadow.shape[1]
