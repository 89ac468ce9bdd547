"""What was found on the demo model: a search played on the whole grid's record, and the rungs that
were committed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oea_server.controller import rungs as read_by_server
from oea_server.lab.quality.search import exhaustive
from oea_server.routing.schedule import BY_BATCH, Schedule
from oea_server.settings import Settings

RESULTS = Path(__file__).parents[3] / "benchmarks/results/2-core-x86_64"


@pytest.fixture(scope="module")
def grid() -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(
        (RESULTS / f"{exhaustive.NAME}.json").read_text(encoding="utf-8")
    )
    return kept


def test_it_finds_what_the_whole_grid_finds_in_a_quarter_of_the_evaluations(
    grid: dict[str, Any],
) -> None:
    done, rows = exhaustive.compared(grid)
    assert len(grid["rules"]) == len(exhaustive.space_of(grid).all)
    assert done.whole == len(grid["rules"]) * grid["pieces"]
    assert done.evaluations <= done.whole / 4
    assert len(rows) == 4
    for each in rows:
        assert each.search.cost <= 1.01 * each.grid.cost
        assert each.search.increase.high <= each.budget
    assert rows[-1].grid.cost < 0.5 * max(
        map(max, (row["reads"] for row in grid["rules"].values()))
    )


def test_the_search_that_ran_has_the_rungs_that_its_record_says() -> None:
    record = json.loads((RESULTS / "calibrate.json").read_text(encoding="utf-8"))
    for each in record["race"].values():
        assert each["evaluations"] <= each["whole"] / 4
    path = RESULTS / "calibrate-rungs.json"
    assert json.loads(path.read_text(encoding="utf-8"))["rungs"] == record["rungs"]
    found = read_by_server.read(str(path), Settings())
    assert all(rung.knobs["pool"] == "union" for rung in found.rungs[1:])


def test_on_other_text_the_rungs_are_within_their_budgets_by_the_mean() -> None:
    """Of the upper ends nine of twelve: the search chose among many that were near."""
    record, other = (
        json.loads((RESULTS / f"{name}.json").read_text())
        for name in ("calibrate", "eval-calibrated")
    )
    found = {(row["batch"], row["arm"]): row["increase"] for row in other["rows"]}
    assert other["seed"] != record["seed"]
    within = []
    for rung in record["rungs"][1:]:
        knobs = {name: Schedule.of(rung["knobs"][name], knob) for name, knob in BY_BATCH.items()}
        for batch in record["batches"]:
            k0, share, mix = (knobs[name].at(batch, 0) for name in ("k0", "share", "mix"))
            value, _, high = found[
                batch, f"oea:{k0}" + (f"/share={share}" if share else "") + f"/mix={mix}"
            ]
            budget = float(rung["name"].split()[2])
            assert value <= budget
            within.append(high <= budget)
    assert (len(within), sum(within)) == (12, 9)
