"""The controller beside a server: takes over, moves, stands back for a hand, gives back the
flags."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from oea_server.controller import routes
from oea_server.controller.goal import Asked
from oea_server.controller.keeper import Keeper, RefusedError, Server
from oea_server.controller.law import PATIENCE, Goal
from oea_server.controller.metrics import Metrics
from oea_server.controller.token_times import Times
from oea_server.controller.watch import LEAST, Look
from oea_server.observe.counts import Totals
from tests.unit.controller_plant import RUNGS

FLAGS = {"policy": "oea", "k0": "auto", "mix": "auto"}
EXPERTS = 128
KEPT = {"8": 1.0, "6": 0.985, "5": 0.97, "4": 0.95, "3": 0.92, "auto": 0.9}


class Fake:
    """A server of one layer, whose time per token is its T in milliseconds over ten."""

    def __init__(self) -> None:
        self.settings = dict(FLAGS)
        self.refuses = ""
        self.paused = False
        self.steps, self.times = 0, Times(0.0, ((np.inf, 0.0),))
        self.tally = np.zeros((1, 2 + 4 * (EXPERTS + 1) + 4), dtype=np.int64)
        self.kept = KEPT
        self.changes: list[dict[str, Any]] = []

    def server(self) -> Server:
        return Server(self.look, self.state, self.change, lambda model, batch: 0.0)

    def look(self) -> Look:
        zeros = np.zeros_like(self.tally)
        steps, requests, tally = self.steps, 16 * self.steps, self.tally.copy()
        totals = Totals(
            [0], 1, np.array([1]), steps, requests, 0.0, requests, Counter(), tally, zeros
        )
        return Look(None if self.paused else totals, self.times)

    def state(self) -> dict[str, Any]:
        return {"settings": dict(self.settings), "started_with": FLAGS, "model": {"layers": 1}}

    def change(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        if self.refuses and knobs.get("k0") == self.refuses:
            raise RefusedError("it clashes")
        self.settings |= knobs
        self.changes.append(dict(knobs))
        return self.state()

    def serve(self, steps: int = 4 * LEAST) -> None:
        """Steps of sixteen requests, at the T of the rung that serves."""
        from oea_server.observe import parts
        from oea_server.routing.tally import MASS_UNIT

        k0 = self.settings["k0"]
        rung = next((rung for rung in RUNGS.rungs if rung.knobs["k0"] == k0), RUNGS.rungs[0])
        vanilla, unique = 80, round(80 * rung.share_at(16))
        split = parts.split(self.tally)
        split.unique[0, unique] += steps
        split.vanilla[0, vanilla] += steps
        split.sums[0] += np.array(
            [16 * steps, 128 * steps, 0, round(16 * steps * self.kept[k0] * MASS_UNIT)]
        )
        self.steps += steps
        number, seconds = (
            self.times.number + 16 * steps,
            self.times.total + 16 * steps * unique * 1e-4,
        )
        self.times = Times(seconds, ((np.inf, number),))


def started(fake: Fake, target: float, floor: float = 0.0) -> Keeper:
    keeper = Keeper(Asked(RUNGS, Goal(target, floor), None), fake.server())
    keeper.period()
    keeper.period()  # past the change
    return keeper


def periods(keeper: Keeper, fake: Fake, number: int) -> list[str]:
    """The k0 that served in each, the periods in which counters tell of a change left out."""
    served = []
    for _ in range(number):
        served.append(fake.settings["k0"])
        fake.serve()
        keeper.period()
        if keeper.changing:
            keeper.period()
    return served


def test_it_takes_over_at_the_safe_rung_and_goes_down_until_the_target_holds() -> None:
    fake = Fake()
    keeper = started(fake, 5.8e-3)
    assert fake.settings["k0"] == "8"
    assert periods(keeper, fake, 6) == ["8", "6", "4", "4", "4", "4"]
    assert keeper.state()["rung"] == "k0=4"
    assert keeper.state()["reason"] == "within the target"
    assert not keeper.state()["saturated"]


def test_the_floor_is_kept_though_the_target_is_missed() -> None:
    fake = Fake()
    keeper = started(fake, 1e-3, floor=0.96)
    assert set(periods(keeper, fake, 12)) == {"8", "6", "5"}
    state = keeper.state()
    assert (state["rung"], state["saturated"], state["allowed"]) == (
        "k0=5",
        True,
        ["vanilla", "k0=6", "k0=5"],
    )
    fake.kept = {**KEPT, "5": 0.95}  # worse than was known
    assert periods(keeper, fake, 3) == ["5", "6", "6"]
    assert keeper.state()["saturated"]


def test_a_hand_wins_until_it_is_switched_on_again() -> None:
    fake = Fake()
    keeper = started(fake, 5.8e-3)
    fake.change({"k0": "7"})
    fake.kept = {**KEPT, "7": 0.99}
    assert periods(keeper, fake, 4) == ["7"] * 4
    assert keeper.state()["mode"] == "by hand"
    assert "k0=7" in keeper.state()["reason"]
    keeper.switch(True)
    assert fake.settings == {**FLAGS, "k0": "8"}
    keeper.period()
    assert periods(keeper, fake, 2)[0] == "8"
    assert keeper.state()["mode"] == "on"


def test_a_knob_that_no_rung_names_is_a_hands_too() -> None:
    fake = Fake()
    keeper = started(fake, 5.8e-3)
    fake.change({"mix": "0.5"})
    periods(keeper, fake, 1)
    assert keeper.state()["mode"] == "by hand"


def test_switched_off_it_gives_back_the_flags() -> None:
    fake = Fake()
    keeper = started(fake, 1e-3)
    periods(keeper, fake, 3)
    keeper.switch(False)
    assert fake.settings == FLAGS
    before = len(fake.changes)
    assert periods(keeper, fake, 3) == ["auto"] * 3
    assert len(fake.changes) == before


def test_metrics_that_stop_hold_the_rung_and_then_the_safe_one_serves() -> None:
    fake = Fake()
    keeper = started(fake, 1e-3)
    periods(keeper, fake, 8)
    fake.paused = True
    assert periods(keeper, fake, PATIENCE + 1) == ["3"] * PATIENCE + ["8"]


def test_a_refused_rung_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    fake = Fake()
    keeper = started(fake, 1e-3)
    fake.refuses = "6"
    assert set(periods(keeper, fake, 8)) == {"8"}
    assert "rung k0=6 was refused: it clashes" in caplog.text


def test_a_refused_safe_rung_is_asked_for_again_and_serves_before_any_other() -> None:
    fake = Fake()
    fake.refuses = "8"
    keeper = Keeper(Asked(RUNGS, Goal(1e-3), None), fake.server())
    for _ in range(2):
        with pytest.raises(RefusedError):
            keeper.period()
    assert fake.settings == FLAGS
    fake.refuses = ""
    keeper.period()
    assert fake.settings["k0"] == "8"


def test_a_failure_is_said_once_and_the_next_period_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = Fake()
    keeper = started(fake, 5.8e-3)
    slept: list[float] = []

    class EndError(BaseException):
        pass

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 3:
            raise EndError

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(fake, "tally", None)  # looking fails
    with pytest.raises(EndError):
        keeper.run(lambda: None)
    assert len(slept) == 4


def test_the_switch_by_http() -> None:
    fake = Fake()
    keeper = started(fake, 5.8e-3)
    app = FastAPI()
    routes.add(app, keeper, lambda endpoint: endpoint)
    client = TestClient(app)
    assert client.get(routes.PATH).json()["mode"] == "on"
    for body in (
        b"",
        b"{}",
        b'{"on": 1}',
        b'{"on": "true"}',
        b"[true]",
        b'{"on": true, "off": false}',
        b"nonsense",
    ):
        reply = client.put(routes.PATH, content=body)
        assert (reply.status_code, "not a switch" in reply.json()["error"]) == (422, True)
    assert client.put(routes.PATH, json={"on": False}).json()["mode"] == "off"
    assert client.put(routes.PATH, json={"on": True}).json()["mode"] == "on"
    fake.refuses = "8"
    assert client.put(routes.PATH, json={"on": True}).status_code == 409


def test_its_series_say_what_holds() -> None:
    fake = Fake()
    registry = CollectorRegistry()
    keeper = started(fake, 1e-3)
    metrics = Metrics(registry)
    periods(keeper, fake, 8)
    metrics.write(keeper)
    said = {
        name: registry.get_sample_value(f"oea_controller_{name}")
        for name in ("on", "rung", "saturated")
    }
    assert said == {"on": 1, "rung": 4, "saturated": 1}
    assert registry.get_sample_value("oea_controller_target_seconds") == 1e-3
    keeper.switch(False)
    metrics.write(keeper)
    assert registry.get_sample_value("oea_controller_on") == 0


def test_only_the_switch_wants_the_admins_key() -> None:
    marked: list[str] = []

    def admin(endpoint: Any) -> Any:
        marked.append(endpoint.__name__)
        return endpoint

    routes.add(FastAPI(), started(Fake(), 1e-3), admin)
    assert marked == ["switch_controller"]
