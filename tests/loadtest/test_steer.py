"""Steps of load on the stub, whose rungs are as fast and as wide as the test says; and the page of
it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from loadtest import load_steps, steer, steered, workload
from loadtest.cli import app
from loadtest.load_steps import Step
from oea_server.client.remote import Remote
from oea_server.controller.rungs import Rungs
from tests.loadtest.conftest import ROOT
from tests.loadtest.stub import Stub

RUNGS = Rungs.model_validate(
    {
        "form": 1,
        "rungs": [
            {"name": "vanilla", "knobs": {"policy": "vanilla"}, "mass_kept": 1.0, "experts": 1.0},
            {"name": "fast", "knobs": {"policy": "oea"}, "mass_kept": 0.875, "experts": 0.5},
        ],
    }
)
LYING = Rungs(form=1, rungs=(RUNGS.rungs[0], RUNGS.rungs[1].model_copy(update={"mass_kept": 0.95})))
"""The second keeps less than it promises."""
LOAD = (Step(2, 0.4), Step(6, 0.8))


def plan(target: float, alone: bool = True) -> steer.Plan:
    return steer.Plan(RUNGS, target, 0.8, LOAD, 1, alone, 0)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Remote, "settle", 0.0)
    monkeypatch.setattr(load_steps, "SPAN", 0.2)
    monkeypatch.setattr(load_steps, "TENANT", workload.parse("t output=fixed:8"))


def test_who_keeps_the_target_is_judged_by_what_clients_saw(stub: Stub, tmp_path: Path) -> None:
    stub.gap |= {"vanilla": 0.06, "oea": 0.004}
    record = steer.measure(stub.remote, plan(0.03))
    rows = {row["side"]: row for row in record["rows"]}
    assert set(rows) == {"controller", "vanilla", "fast"}
    assert rows["vanilla"]["late"] == rows["vanilla"]["spans"] > 0
    assert rows["fast"]["late"] == rows["controller"]["late"] == 0
    assert rows["vanilla"]["tpot"] > 0.06 > rows["fast"]["tpot"] > 0.004
    assert (rows["vanilla"]["mass_kept"], rows["vanilla"]["unique"]) == (1, 80)
    assert rows["fast"]["mass_kept"] == 0.875
    assert rows["fast"]["poor"] == 0
    assert steer.best_alone(record["rows"]) == "fast"
    assert not stub.controlled
    steered.draw({**record, "plan": {**record["plan"], "rounds": 1}}, tmp_path / "steer.png")
    assert (tmp_path / "steer.png").stat().st_size > 10_000


def test_a_token_without_text_is_a_token(stub: Stub) -> None:
    stub.gap |= {"vanilla": 0.02, "oea": 0.02}
    stub.texts = ["half ", "", "", ""]
    (vanilla,) = [
        row for row in steer.measure(stub.remote, plan(0.05))["rows"] if row["side"] == "vanilla"
    ]
    assert vanilla["late"] == 0 < vanilla["spans"]


def test_a_floor_that_is_not_kept_is_counted(stub: Stub) -> None:
    record = steer.measure(stub.remote, plan(10.0)._replace(rungs=LYING, floor=0.9))
    rows = {row["side"]: row for row in record["rows"]}
    assert rows["fast"]["poor"] > 0
    assert rows["vanilla"]["poor"] == 0
    assert steer.best_alone(record["rows"]) == "vanilla"


def test_the_page_has_a_line_for_each_side_and_the_reasons(stub: Stub) -> None:
    record = steer.measure(stub.remote, plan(0.03, alone=False))
    machine = {"name": "m", "processor": "p", "cores": 2, "memory_gib": 24}
    page = steered.markdown(
        {**record, "model": {"name": "x"}, "machine": machine, "versions": {}, "command": "c"}, "n"
    )
    assert "| **controller** |" in page
    assert "| 0 | oea | it is on |" in page
    assert "at 6: late" in page


def test_as_many_chats_as_the_step_says(stub: Stub) -> None:
    stub.gap["oea"] = 0.08
    load_steps.play(stub.url, LOAD, "x", stub.remote.metrics)
    first = min(stub.began)
    assert sum(began < first + 0.2 for began in stub.began) == 2
    assert stub.left > 0  # who still chats at the end is given up
    assert load_steps.until(LOAD, 4, 0.4) == pytest.approx(0.8)
    assert load_steps.until((*LOAD, Step(2, 1.0)), 4, 0.5) == pytest.approx(0.7)
    assert load_steps.until((*LOAD, Step(2, 1.0)), 0, 0.5) == pytest.approx(1.7)
    assert [load_steps.at(LOAD, seconds) for seconds in (0, 0.39, 0.41, 1.19, 1.21)] == [
        0,
        0,
        1,
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--load", "2"], "--load=2: '2' is not CHATS:SECONDS"),
        (["--load", "0:5"], "'0:5' is not CHATS:SECONDS"),
        (["--target", "fast"], "target_tpot=fast: not a time"),
        (["--target", "p95:30ms"], "spans are judged by a mean time and by mass"),
        (["--floor", "2"], "quality_floor=2: neither"),
        (["--rungs", "none.json"], "rungs=none.json: No such file"),
    ],
)
def test_nonsense_is_refused_before_a_server_starts(flags: list[str], line: str) -> None:
    rungs = ["--rungs", str(ROOT / "deploy/rungs/demo.json")]
    found = CliRunner().invoke(app, ["steer", *rungs, *flags])
    assert found.exit_code == 2
    assert line in found.output
