"""What a search leaves behind, of a model that is a formula."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from oea_server.controller import rungs as read_by_server
from oea_server.lab.quality.search import asked, page, searching
from oea_server.lab.quality.search.candidates import space
from oea_server.lab.quality.search.ledger import Ledger
from oea_server.lab.quality.search.opening import Opened
from oea_server.observe.latency import Line
from oea_server.settings import Settings
from tests.unit.quality.simulated_rules import measured

ASKED = asked.Wanted(None, None, [4, 16], 64, 16, 1, 0, "0.025", [], "oea-server calibrate")


@pytest.fixture
def found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> dict[str, Any]:
    about = {
        "model": {"name": "a formula", "sha256": "0", "k": 8, "experts": 128},
        "text": {"name": "text", "sha256": "0", "sequences": 64, "length": 16},
        "ranks": 1,
        "seed": 0,
        "routing": "rules",
    }
    at = cache(lambda batch: cache(measured(1)))
    ledger = Ledger(tmp_path / "calibrate.jsonl", about)
    ready = Opened(space(8, 128), at, about, ledger, torch.device("cpu"), tmp_path)
    (tmp_path / "calibrate-schedule-9.json").write_text("{}")  # of a run before
    (tmp_path / "calibrate-rungs.json").write_text("{}")
    monkeypatch.setattr(searching, "opened", lambda wanted, folder: ready)
    return searching.search(getattr(request, "param", ASKED), tmp_path)


def test_rungs_schedules_page_and_picture(found: dict[str, Any], tmp_path: Path) -> None:
    rungs = read_by_server.read(str(tmp_path / "calibrate-rungs.json"), Settings()).rungs
    assert [rung.name for rung in rungs] == [row["name"] for row in found["rungs"]]
    assert len(rungs) >= 3
    assert not (tmp_path / "calibrate-schedule-9.json").exists()
    assert all(rung.nats is not None and rung.nats <= 0.025 for rung in rungs)
    assert (tmp_path / "calibrate.md").read_text() == page.markdown(
        json.loads((tmp_path / "calibrate.json").read_text())
    )
    assert (tmp_path / "calibrate.png").stat().st_size > 10_000
    for number, rung in enumerate(rungs):
        path = tmp_path / f"calibrate-schedule-{number}.json"
        assert path.exists() == (rung.knobs.get("pool") == "union")
        if path.exists():
            knobs: dict[str, Any] = {name: rung.knobs[name] for name in ("k0", "share", "mix")}
            by_schedule, by_rung = (
                each.policy_for(8) for each in (Settings(schedule=str(path)), Settings(**knobs))
            )
            for batch in (2, 4, 16, 64):
                assert by_schedule.numbers(batch, 0, k=8, num_experts=128) == by_rung.numbers(
                    batch, 0, k=8, num_experts=128
                )


@pytest.mark.parametrize(
    "found", [ASKED._replace(lines=[Line("moe.json", 16, 100.0, 10.0)])], indirect=True
)
def test_against_latency_the_cost_is_a_layers_time(found: dict[str, Any]) -> None:
    assert found["against"] == "latency"
    for row in found["rows"]:
        assert row["cost"] == pytest.approx(100 + 10 * row["reads"])
    chosen = found["rungs"][-1]["experts"]["16"]
    # of experts, whatever the cost is
    assert any(
        chosen == pytest.approx(row["reads"] / 75, abs=0.002)
        for row in found["rows"]
        if row["batch"] == 16
    )


@pytest.mark.parametrize("found", [ASKED._replace(budget="0.0000001")], indirect=True)
def test_where_nothing_is_within_the_budget_the_page_says_so(
    found: dict[str, Any], tmp_path: Path
) -> None:
    assert found["rungs"] == []
    assert (
        "No rule keeps within the budget: serve vanilla" in (tmp_path / "calibrate.md").read_text()
    )
    assert not (tmp_path / "calibrate-rungs.json").exists()


def test_the_page_has_each_rung_as_flags() -> None:
    """Also one of another pool, which a schedule's file could not say."""
    knobs = {"k0": "1:8,16:2", "share": "0.0", "mix": "0.5", "pool": "budget", "rank_budget": 6}
    rungs = [
        {
            "name": "a",
            "knobs": knobs,
            "mass_kept": 0.9,
            "nats": 0.01,
            "experts": {"1": 1.0, "16": 0.5},
        }
    ]
    shown = page._rungs(
        {"name": "calibrate", "rungs": rungs, "batches": [16], "against": "busiest", "ranks": 8}
    )
    assert (
        "    0  --oea-k0 1:8,16:2 --oea-share 0.0 --oea-mix 0.5 --oea-pool budget"
        " --oea-rank-budget 6" in shown
    )
