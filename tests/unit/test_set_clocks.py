"""A wall clock that is set, back or forward, while a server counts."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from prometheus_client import CollectorRegistry, multiprocess, values
from prometheus_client.values import MultiProcessValue

from oea_server.observe import stats as stats_
from oea_server.observe.metrics import Latest, Metrics
from oea_server.observe.reporter import Options, Reporter
from oea_server.observe.stats import Stats
from tests.unit.counted import Scheduler, state

START = 1_700_000_000.0
JUMPS = [-7200.0, -3600.0, -300.0, -5.0, 5.0, 300.0, 3600.0, 1e9]


class Machine:
    """A server with one scheduler, and the machine's clocks."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.steady, self.version = START, 5000.0, 0
        clocks = SimpleNamespace(
            time=lambda: self.wall, monotonic=lambda: self.steady, sleep=time.sleep
        )
        for module in ("stats", "reporter", "metrics", "quiet"):
            monkeypatch.setattr(f"oea_server.observe.{module}.time", clocks)
        self.scheduler = Scheduler()
        self.reporter = Reporter(
            Metrics(CollectorRegistry()), self.scheduler.counted, Options(folder=folder)
        )
        self.stats = Stats(folder)

    def second(self, steps: int = 1) -> None:
        """One second of serving."""
        self.wall, self.steady = self.wall + 1.0, self.steady + 1.0
        for _ in range(steps):
            self.scheduler.tally.add_vanilla(0, torch.tensor([[0, 1]]), None)
        self.scheduler.steps = [(1, 0.01)] * steps
        self.reporter.report()
        self.stats.look(self.wall, self.steady)

    def change(self, policy: str) -> None:
        self.version += 1
        self.scheduler.state = state(policy, self.version)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


@pytest.mark.parametrize("jump", JUMPS)
def test_points_and_version_move_on_after_a_jump(machine: Machine, jump: float) -> None:
    for _ in range(10):
        machine.second()
    machine.wall += jump
    machine.change("vanilla")
    for _ in range(3):
        machine.second(steps=2)
    body = machine.stats.body(state())
    assert [point["steps"] for point in body["points"]] == [1] * 10 + [2] * 3
    assert [point["version"] for point in body["points"]] == [0] * 10 + [1] * 3
    assert machine.stats.state == state("vanilla", 1)
    assert body["total"]["steps"] == 16
    assert body["recent"]["steps"] == 16
    # all of them by the clock as it is now, as far apart as they were
    assert [point["t"] for point in body["points"]] == [
        machine.wall - 12 + second for second in range(13)
    ]
    assert body["t"] == machine.wall


@pytest.mark.parametrize("jump", JUMPS)
def test_who_asks_for_what_is_new_hears_it_after_a_jump(machine: Machine, jump: float) -> None:
    for _ in range(10):
        machine.second()
    since = machine.stats.body(state())["points"][-1]["t"]
    machine.wall += jump
    machine.second()
    new = machine.stats.body(state(), since)["points"]
    assert new[-1]["t"] == machine.wall
    since = new[-1]["t"]
    machine.second()
    assert [point["t"] for point in machine.stats.body(state(), since)["points"]] == [machine.wall]


def test_a_clock_that_is_set_again_and_again(machine: Machine) -> None:
    for jump in (3600.0, -3600.0, -3600.0, 7200.0, -1e6):
        machine.second()
        machine.wall += jump
    machine.second()
    times = [point["t"] for point in machine.stats.body(state())["points"]]
    assert times == [machine.wall - 5 + second for second in range(6)]


def test_a_clock_that_is_slewed_moves_no_point(machine: Machine) -> None:
    for _ in range(5):
        machine.second()
        machine.wall += 0.1
    times = [point["t"] for point in machine.stats.body(state())["points"]]
    assert times == [START + second for second in range(1, 6)]


def test_a_long_look_is_no_jump(machine: Machine) -> None:
    machine.second()
    machine.wall, machine.steady = machine.wall + 90.0, machine.steady + 90.0  # stopped, or busy
    machine.second()
    assert [point["t"] for point in machine.stats.body(state())["points"]] == [
        START + 1,
        START + 92,
    ]


def test_nothing_is_new_to_who_has_heard_it_all(machine: Machine) -> None:
    machine.second()
    assert machine.stats.body(state(), machine.wall)["points"] == []
    assert machine.stats.body(state(), machine.wall + stats_.JUMP)["points"] == []


def test_the_state_is_that_of_whoever_wrote_last(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two replicas, one wrote before the clock was set back and has been idle since."""
    machine.second()
    idle = Scheduler()
    with monkeypatch.context() as as_another_process:
        as_another_process.setattr("oea_server.observe.snapshot.os.getpid", lambda: 1)
        Reporter(Metrics(CollectorRegistry()), idle.counted, Options(folder=tmp_path)).report()
    machine.wall -= 3600.0
    machine.change("vanilla")
    machine.second()
    assert machine.stats.state == state("vanilla", 1)


def test_a_scheduler_that_counts_anew_takes_nothing_back(machine: Machine, tmp_path: Path) -> None:
    for _ in range(3):
        machine.second(steps=5)
    machine.scheduler = Scheduler()
    machine.reporter = Reporter(
        Metrics(CollectorRegistry()), machine.scheduler.counted, Options(folder=tmp_path)
    )
    machine.second(steps=2)
    machine.second(steps=2)
    body = machine.stats.body(state())
    assert [point["steps"] for point in body["points"]] == [5, 5, 5, 2, 2]
    assert body["total"]["steps"] == 4


def test_recent_takes_nothing_back_either(machine: Machine, tmp_path: Path) -> None:
    for _ in range(stats_.RECENT):
        machine.second(steps=5)
    machine.scheduler = Scheduler()
    machine.reporter = Reporter(
        Metrics(CollectorRegistry()), machine.scheduler.counted, Options(folder=tmp_path)
    )
    machine.second(steps=2)
    machine.second(steps=2)
    recent = machine.stats.body(state())["recent"]
    assert (recent["steps"], recent["tokens"]) == (4, 4)


def test_a_gauge_is_what_was_set_last_in_whichever_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One replica wrote before the clock was set back, another after."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    wall = START
    monkeypatch.setattr(time, "time", lambda: wall)
    for pid, value in ((1, 0.25), (2, 0.75)):
        monkeypatch.setattr(values, "ValueClass", MultiProcessValue(lambda pid=pid: pid))
        gauge = Latest("kept", "kept", ["layer"], registry=None)
        gauge.labels(3).set(value)
        wall -= 3600.0
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(tmp_path))
    assert registry.get_sample_value("kept", {"layer": "3"}) == 0.75
