"""Every arm at every batch size, chunk by chunk of the text, resumably."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from oea_server.lab.quality import equal
from oea_server.lab.quality.arms import Arm
from oea_server.lab.quality.measure import Judge, Measured
from oea_server.lab.quality.routed import routers
from oea_server.lab.quality.text import Sequences
from oea_server.lab.records import stats

Key = tuple[int, int, str]
"""Chunk, batch size, arm."""
BASE = "vanilla"


class Plan(NamedTuple):
    """What is measured.

    Args:
        arms: vanilla is always among them.
        batches: each divides `chunk`.
        chunk: sequences that go through the model at once.
        ranks: in how many parts the experts are split, for the busiest one.
    """

    arms: Sequence[Arm]
    batches: Sequence[int]
    chunk: int
    ranks: Sequence[int]


class OtherRunError(ValueError):
    """The file to resume from is of another model, text or plan."""


def run(
    model: Any, text: Sequences, plan: Plan, kept: Path, about: dict[str, Any]
) -> Iterator[None]:
    """Measure what `kept` does not have yet, adding a line to it each; yields after each of
    `total(plan, text)`.

    Args:
        about: what has to be the same for a run to be resumed; the first line of the file.

    Raises:
        OtherRunError: it is not.
    """
    have = read(kept, about)
    found = routers(model)
    with kept.open("a") as lines:
        if not kept.stat().st_size:
            lines.write(json.dumps(about) + "\n")
        elif not kept.read_bytes().endswith(b"\n"):
            lines.write("\n")  # the run before was cut within a line
        for chunk in range(len(text.ids) // plan.chunk):
            judge: Judge | None = None
            for batch in plan.batches:
                for arm in plan.arms:
                    if (chunk, batch, arm.label) not in have:
                        if judge is None:
                            ids = text.ids[chunk * plan.chunk : (chunk + 1) * plan.chunk]
                            judge = Judge(model, found, ids.to(model.device))
                        measured = judge.measure(arm, batch, plan.ranks)
                        line = {
                            "chunk": chunk,
                            "batch": batch,
                            "arm": arm.label,
                            **measured._asdict(),
                        }
                        lines.write(json.dumps(line) + "\n")
                        lines.flush()
                    yield


def total(plan: Plan, text: Sequences) -> int:
    return len(text.ids) // plan.chunk * len(plan.batches) * len(plan.arms)


def read(kept: Path, about: dict[str, Any]) -> dict[Key, Measured]:
    """What a file has.

    Raises:
        OtherRunError: it is of another run.
    """
    if not kept.exists() or not kept.stat().st_size:
        return {}
    first, *rest = kept.read_bytes().decode(errors="replace").split("\n")
    try:
        same = json.loads(first) == json.loads(json.dumps(about))
    except ValueError:
        same = False
    if not same:
        raise OtherRunError(
            f"{kept} is of another run (model, text, seed or ranks differ): move it away"
        )
    found = {}
    for text in rest:
        try:
            line = json.loads(text)
        except ValueError:
            continue  # cut by the end of the run that wrote it
        key = (line.pop("chunk"), line.pop("batch"), line.pop("arm"))
        line["busiest"] = {int(ranks): values for ranks, values in line["busiest"].items()}
        found[key] = Measured(**line)
    return found


def rows(have: dict[Key, Measured], plan: Plan, seed: int) -> list[dict[str, Any]]:
    """Means over all sequences, with intervals; differences are paired with vanilla at the same
    batch size."""
    chunks = sorted({chunk for chunk, _, _ in have})
    found = []
    for batch in plan.batches:
        joined = {
            arm.label: _join([have[chunk, batch, arm.label] for chunk in chunks])
            for arm in plan.arms
        }
        base = joined[BASE]
        points = {arm.label: _points(joined[arm.label], base) for arm in plan.arms}
        plain = [points[arm.label] for arm in plan.arms if arm.is_plain_oea]
        for arm in plan.arms:
            mine, at = joined[arm.label], points[arm.label]
            over = {
                what: (
                    None
                    if arm.is_plain_oea
                    else equal.over(at[what], [each[what] for each in plain], seed)
                )
                for what in at
            }
            found.append(
                {
                    "arm": arm.label,
                    "kind": arm.kind,
                    "batch": batch,
                    "routing": mine.routing,
                    "sequences": len(mine.loss),
                    "loss": stats.mean(mine.loss, seed),
                    "increase": stats.paired(mine.loss, base.loss, seed),
                    "kl": stats.mean(mine.kl, seed),
                    "agreement": stats.mean(mine.agreement, seed),
                    "kept": stats.mean(mine.kept, seed),
                    "unique": stats.mean(mine.unique, seed),
                    "over_oea": over,
                    "busiest": {
                        ranks: stats.mean(values, seed) for ranks, values in mine.busiest.items()
                    },
                }
            )
    return found


def _points(mine: Measured, base: Measured) -> dict[str, equal.Point]:
    """By what is read: `unique` experts, or the busiest one's of so many ranks."""
    increase = np.asarray(mine.loss) - np.asarray(base.loss)
    reads = {"unique": mine.unique} | {str(ranks): values for ranks, values in mine.busiest.items()}
    return {what: equal.Point(float(np.mean(values)), increase) for what, values in reads.items()}


def _join(parts: Sequence[Measured]) -> Measured:
    joined = {
        name: [value for part in parts for value in getattr(part, name)]
        for name in Measured._fields
        if name not in ("busiest", "routing")
    }
    busiest = {
        ranks: [v for part in parts for v in part.busiest[ranks]] for ranks in parts[0].busiest
    }
    routing = ", ".join(sorted({part.routing for part in parts}))
    return Measured(**joined, busiest=busiest, routing=routing)
