"""One search from a checkpoint to its rungs, schedules, page and picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.progress import Progress

from oea_server.controller import rungs as read_by_server
from oea_server.lab.quality import calibrate
from oea_server.lab.quality.search import ladder, page
from oea_server.lab.quality.search.asked import Wanted
from oea_server.lab.quality.search.candidates import Candidate
from oea_server.lab.quality.search.front import Point, front, points
from oea_server.lab.quality.search.ledger import Measured
from oea_server.lab.quality.search.measuring import pieces
from oea_server.lab.quality.search.opening import Opened, opened
from oea_server.lab.quality.search.race import PART, Race, race
from oea_server.lab.records import files, record
from oea_server.observe.latency import nearest
from oea_server.settings import Settings


def search(wanted: Wanted, folder: Path | None) -> dict[str, Any]:
    """Search at each batch size, and write what was found; what was measured is kept, and the same
    search goes on.

    Raises:
        ValueError: the model, the text or the file to go on from does not fit.
        OSError: one of them cannot be read.
    """
    ready = opened(wanted, folder)
    batches, lines = wanted.batches, wanted.lines
    races = _races(ready, wanted)
    cost = {batch: nearest(list(lines), batch).at if lines else _itself for batch in batches}
    tried = {batch: points(each.tried, cost[batch], wanted.seed) for batch, each in races.items()}
    full = {
        batch: [
            each for each in tried[batch] if each.rule in {one.rule for one in races[batch].left}
        ]
        for batch in batches
    }
    known = {(batch, each.rule): each.cost for batch in batches for each in tried[batch]}

    def costs(batch: int, rule: Candidate) -> float:
        if (batch, rule) not in known:
            known[batch, rule] = cost[batch](ready.at(batch)(rule, 0).reads)
        return known[batch, rule]

    base = ready.space.base
    vanilla = {batch: next(each for each in full[batch] if each.rule == base) for batch in batches}
    limit = max(each.limit for each in races.values())
    found = ladder.ladder(full, base, limit, costs)
    about = {
        "benchmark": "calibrate",
        "name": wanted.name,
        "command": wanted.command,
        "machine": record.machine(ready.device),
        "versions": record.versions(),
        **ready.about,
        "against": "latency" if lines else "busiest" if wanted.ranks > 1 else "T",
        "line": [each._asdict() for each in lines],
        "budget": {"asked": wanted.budget, "nats": limit},
        "batches": list(batches),
        "race": {
            str(batch): {
                "evaluations": each.evaluations,
                "whole": each.whole,
                "rounds": each.rounds,
            }
            for batch, each in races.items()
        },
        "rows": [
            row
            for batch in batches
            for row in _rows(batch, tried[batch], full[batch], races[batch])
        ],
        "rungs": [],
    }
    for stale in (
        rungs_of(ready.folder, wanted.name),
        *ready.folder.glob(f"{wanted.name}-schedule-[0-9].json"),
    ):
        stale.unlink(missing_ok=True)  # of another budget
    if found:
        about["rungs"] = _write(ready, found, vanilla, about)
    path = ready.folder / f"{wanted.name}.json"
    result = files.write(path, about)
    shown = page.markdown(result)
    (ready.folder / f"{wanted.name}.md").write_text(shown, encoding="utf-8")
    if find_spec("matplotlib") is not None:
        from oea_server.lab.quality.search import picture

        picture.draw(result, ready.folder / f"{wanted.name}.png")
    print(shown)
    print(f"kept: {path}, with its page, picture, rungs and schedules beside it")
    return result


def rungs_of(folder: Path, name: str) -> Path:
    """Path of a search's rungs."""
    return folder / f"{name}-rungs.json"


def _itself(reads: float) -> float:
    return reads


def _races(ready: Opened, wanted: Wanted) -> dict[int, Race]:
    def allowed(loss: float) -> float:
        return calibrate.budget(wanted.budget, {"rows": [{"arm": "vanilla", "loss": [loss]}]})

    found = {}
    with Progress() as bar:
        for batch in wanted.batches:
            count = pieces(wanted.sequences, batch)
            room = int(PART * len(ready.space.all) * count)
            task = bar.add_task(f"B = {batch}, at most", total=room)
            measure = _counted(ready.at(batch), lambda task=task: bar.advance(task))  # type: ignore[misc]
            found[batch] = race(ready.space, measure, count, allowed)
            bar.update(task, description=f"B = {batch}", total=found[batch].evaluations)
    return found


def _counted(
    measure: Callable[[Candidate, int], Measured], after: Callable[[], None]
) -> Callable[[Candidate, int], Measured]:
    def then(rule: Candidate, piece: int) -> Measured:
        line = measure(rule, piece)
        after()
        return line

    return then


def _rows(
    batch: int, tried: Sequence[Point], full: Sequence[Point], by: Race
) -> list[dict[str, Any]]:
    on_front = {each.rule for each in front(full)}
    seen = {each.rule: each.pieces for each in by.tried}
    return [
        {
            "batch": batch,
            "rule": each.rule.label,
            "pieces": seen[each.rule],
            "increase": each.increase,
            "reads": each.reads,
            "cost": each.cost,
            "unique": each.unique,
            "kept": each.kept,
            "front": each.rule in on_front,
        }
        for each in tried
    ]


def _write(
    ready: Opened, found: Sequence[ladder.Rung], vanilla: dict[int, Point], about: dict[str, Any]
) -> list[dict[str, Any]]:
    """The rungs, read as a server would, and a schedule of each that can be one; -> the rungs."""
    k = ready.space.base.k0
    by = {"T": "T", "busiest": "the busiest rank's experts", "latency": "experts"}[about["against"]]
    source = (
        f"oea-server calibrate, {about['text']['name']}: the least mass kept, the largest upper end"
        f" of the loss's 95 % interval, {by} as a share of vanilla's, at {min(vanilla)} to"
        f" {max(vanilla)} tokens"
    )
    content = ladder.content(found, vanilla, about["model"]["name"], source, k)
    path = rungs_of(ready.folder, about["name"])
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    read_by_server.read(str(path), Settings())
    for number, rung in enumerate(found, 1):
        # a schedule's file holds no pool: without it, it would be another rule
        if rung.fixed == ladder.UNION:
            schedule = ready.folder / f"{about['name']}-schedule-{number}.json"
            calibrate.save(schedule, about, ladder.choices(rung, vanilla), rung.budget, k)
    rows: list[dict[str, Any]] = content["rungs"]
    return rows
