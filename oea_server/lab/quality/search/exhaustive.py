"""The whole grid at one batch size, to judge a search by: `python -m
oea_server.lab.quality.search.exhaustive DIR`.

On the demo model and its held-out text. What is measured is kept line by line, as the search's own
is; from the record a search can be played again without a model."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import track

from oea_server.lab.quality.search.asked import Wanted
from oea_server.lab.quality.search.candidates import Candidate, Space, space
from oea_server.lab.quality.search.front import Point, cheapest, points
from oea_server.lab.quality.search.ladder import STEPS
from oea_server.lab.quality.search.ledger import Measured
from oea_server.lab.quality.search.measuring import pieces
from oea_server.lab.quality.search.opening import opened
from oea_server.lab.quality.search.race import Course, Race, race
from oea_server.lab.records import files, record
from oea_server.lab.records.tables import made_by, table

Record = dict[str, Any]
NAME = "calibrate-exhaustive"
BUDGET = 0.01
"""Share of vanilla's cross-entropy."""
UNIT = 1e-5
"""Nats: increases are kept as whole numbers of this unit."""


class Compared(NamedTuple):
    """One budget: what the whole grid would choose, and what the search does."""

    budget: float
    grid: Point
    search: Point


def measured(given: argparse.Namespace) -> Record:
    """Every rule on all of the text."""
    wanted = Wanted(
        None, None, [given.batch], given.sequences, given.length, given.ranks, 0, "1%", [], "", NAME
    )
    ready = opened(wanted, given.folder)
    measure, count = ready.at(given.batch), pieces(given.sequences, given.batch)
    for piece in track(range(count), "pieces of the text"):
        for rule in ready.space.all:
            measure(rule, piece)

    def all_of(rule: Candidate) -> list[Measured]:
        return [measure(rule, piece) for piece in range(count)]

    base = np.concatenate([each.loss for each in all_of(ready.space.base)])
    command = ["python", "-m", "oea_server.lab.quality.search.exhaustive", given.folder.name]
    for name in ("batch", "sequences", "length", "ranks"):
        command += [f"--{name}", str(getattr(given, name))]
    return {
        "benchmark": NAME,
        "command": shlex.join(command),
        "machine": record.machine(ready.device),
        "versions": record.versions(),
        **ready.about,
        "batch": given.batch,
        "pieces": count,
        "vanilla": base.round(5).tolist(),
        "rules": {rule.label: _kept(all_of(rule), base) for rule in ready.space.all},
    }


def _kept(lines: Sequence[Measured], base: Any) -> dict[str, Any]:
    increase = np.concatenate([each.loss for each in lines]) - base
    of = {name: [getattr(each, name) for each in lines] for name in ("reads", "unique", "kept")}
    return {**of, "increase": np.rint(increase / UNIT).astype(int).tolist()}


def space_of(recorded: Record) -> Space:
    """What was measured."""
    return space(recorded["model"]["k"], recorded["model"]["experts"], recorded["ranks"])


def measure_of(recorded: Record) -> Callable[[Candidate, int], Measured]:
    """A record in a model's place."""
    base = np.asarray(recorded["vanilla"]).reshape(recorded["pieces"], -1)
    tokens = base.shape[1] * recorded["text"]["length"]

    def measure(rule: Candidate, piece: int) -> Measured:
        row = recorded["rules"][rule.label]
        increase = np.asarray(row["increase"]).reshape(base.shape)[piece] * UNIT
        return Measured(
            base[piece] + increase,
            row["reads"][piece],
            row["unique"][piece],
            row["kept"][piece],
            tokens,
        )

    return measure


def compared(recorded: Record) -> tuple[Race, list[Compared]]:
    """A search played on a grid, and what it finds beside what there is, at each step of the
    budget."""
    found, measure = space_of(recorded), measure_of(recorded)
    done = race(found, measure, recorded["pieces"], lambda loss: BUDGET * loss)
    course = Course(found.base, measure)
    course.run(found.all, recorded["pieces"])
    whole = [each for rule in found.all if (each := course.tried(rule)).mean <= done.limit]
    both = [points(each, float, recorded["seed"]) for each in (whole, done.left)]
    rows = []
    for budget in (done.limit * step for step in STEPS):
        grid, search = (
            cheapest([each for each in of if each.increase.high <= budget]) for of in both
        )
        rows.append(Compared(budget, grid, search))
    return done, rows


def markdown(recorded: Record) -> str:
    """The page."""
    done, rows = compared(recorded)
    rounds = ", ".join(f"{rules} on {upto}" for upto, rules in done.rounds)
    text = recorded["text"]
    lines = [
        f"# A search beside the whole grid: {recorded['model']['name']}, B = {recorded['batch']}",
        "",
        (
            f"{len(recorded['rules'])} rules on {text['sequences']} sequences of {text['length']}"
            f" tokens of {text['name']}, in {recorded['pieces']} pieces: {done.whole} evaluations."
            f" The search took {done.evaluations} of them ({done.evaluations / done.whole:.0%}):"
            f" {rounds} pieces. Within each budget, by the upper end of the 95 % interval, the rule"
            " that reads least:"
        ),
        "",
        *table(
            [
                "budget, nats",
                "the whole grid's",
                "the search's",
                "T",
                "T of the search's",
                "increase, nats",
                "search's",
            ],
            [
                [
                    *(f"{each.budget:.4f}", each.grid.rule.label, each.search.rule.label),
                    *(f"{each.grid.cost:.2f}", f"{each.search.cost:.2f}"),
                    *(_interval(each.grid), _interval(each.search)),
                ]
                for each in rows
            ],
            3,
        ),
        "",
    ]
    return "\n".join([*lines, *made_by(recorded, recorded["seed"]), ""])


def _interval(point: Point) -> str:
    return "{:+.4f} ({:+.4f} to {:+.4f})".format(*point.increase)


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--ranks", type=int, default=1)
    given = parser.parse_args()
    path = given.folder / f"{NAME}.json"
    page = markdown(files.write(path, measured(given)))
    path.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
