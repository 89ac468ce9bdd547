"""From the schedulers' snapshots to the body of /oea/stats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from prometheus_client import CollectorRegistry

from oea_server.observe import latency
from oea_server.observe.metrics import Metrics
from oea_server.observe.reporter import Options, Reporter
from oea_server.observe.stats import Stats
from oea_server.routing import Policy, route
from tests.unit.counted import Scheduler, state


def reporter_of(scheduler: Scheduler, folder: Path, first_stage: bool = True) -> Reporter:
    return Reporter(
        Metrics(CollectorRegistry()), scheduler.counted, Options(first_stage, folder=folder)
    )


def as_process(reporter: Reporter, pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Report as another process would: into a snapshot of its own."""
    monkeypatch.setattr("oea_server.observe.snapshot.os.getpid", lambda: pid)
    reporter.report()


def look(stats: Stats, t: float) -> None:
    """Look at second `t` of a clock that nobody sets."""
    stats.look(t, t)


def test_before_anything_was_counted(tmp_path: Path) -> None:
    for folder, missing in ((None, "--enable-metrics"), (tmp_path, "nothing yet")):
        stats = Stats(folder)
        look(stats, 1.0)
        body = stats.body(state())
        assert body["points"] == []
        assert body["total"] is None
        assert missing in body["missing"]
    inactive = {
        **state(),
        "reason": "no router can be handled",
        "model": {**state()["model"], "layers": 0},
    }
    assert Stats(tmp_path).body(inactive)["missing"] == "no router can be handled"


def test_what_steers_the_server_is_in_the_body(tmp_path: Path) -> None:
    stats = Stats(tmp_path)
    assert stats.body(state())["controller"] is None
    stats.controller = lambda: {"mode": "on"}
    assert stats.body(state())["controller"] == {"mode": "on"}


def test_seconds_and_sums(tmp_path: Path) -> None:
    scheduler, stats = Scheduler([2, 5], ranks=2), Stats(tmp_path)
    reporter = reporter_of(scheduler, tmp_path)
    reporter.report()
    look(stats, 10.0)
    for ids in ([[0, 1], [2, 9], [2, 1]], [[4, 4], [4, 4], [4, 4]]):
        for layer in (2, 5):
            scheduler.tally.add_vanilla(layer, torch.tensor(ids), None)
    scheduler.steps, scheduler.requests, scheduler.bypassed["policy"] = [(3, 0.02), (3, 0.04)], 6, 2
    scheduler.state = state("vanilla", 1)
    reporter.report()
    look(stats, 11.0)
    look(stats, 12.0)  # nothing new may be a snapshot that comes late
    look(stats, 13.0)
    body = stats.body(state("vanilla", 1))
    idle, busy, idle_again = body["points"]
    assert (idle["steps"], idle["unique"], idle["layers"], idle["policy"]) == (0, None, [], "oea")
    assert (busy["steps"], busy["batch"], busy["step_ms"]) == (2, 3.0, pytest.approx(30.0))
    assert (busy["unique"], busy["vanilla"], busy["busiest"], busy["mass_kept"]) == (
        2.5,
        2.5,
        2.0,
        1.0,
    )
    assert (busy["layers"], busy["policy"], busy["version"]) == ([2.5, 2.5], "vanilla", 1)
    assert (idle_again["steps"], idle_again["shadow_unique"]) == (0, None)
    assert body["total"] == body["recent"]
    assert body["total"] == {
        "steps": 2,
        "tokens_per_step": 3.0,
        "requests_per_step": 3.0,
        "step_ms": pytest.approx(30.0),
        "unique_experts": 2.5,
        "vanilla_unique_experts": 2.5,
        "busiest_rank": 2.0,
        "vanilla_busiest_rank": 2.0,
        "rank_spread": 1.6,
        "vanilla_rank_spread": 1.6,
        "mass_kept": 1.0,
        "accepted_length": None,
        "rejected_experts": None,
        "tokens": 12,
        "assignments": 24,
        "piggybacked": 0,
        "bytes_read": 1000,
        "bytes_saved": 0,
    }
    assert [each["layer"] for each in body["layers"]] == [2, 5]
    assert {each["bytes_read"] for each in body["layers"]} == {500}
    assert body["distribution"] == {
        "unique": {"1": 2, "4": 2},
        "vanilla": {"1": 2, "4": 2},
        "shadow": {},
    }
    assert body["bypassed"] == {"policy": 2}
    assert body["shadow"] is None
    assert [each["t"] for each in stats.body(state(), since=10.5)["points"]] == [11.0, 13.0]
    json.dumps(body)


def test_what_drafts_were_worth(tmp_path: Path) -> None:
    """Two steps of four requests with four rows each, in two layers."""
    scheduler, stats = Scheduler([2, 5]), Stats(tmp_path)
    reporter = reporter_of(scheduler, tmp_path)
    reporter.report()
    look(stats, 10.0)
    for rejected in ((3, 1), (0, 4)):
        for layer in (2, 5):
            scheduler.tally.add_vanilla(layer, torch.arange(16)[:, None], None)
        scheduler.tally.verified[:, 0] += 9
        scheduler.tally.verified[:, 1] += torch.tensor(rejected)
    scheduler.steps, scheduler.requests = [(16, 0.02), (16, 0.02)], 8
    reporter.report()
    look(stats, 11.0)
    body = stats.body(state())
    point = body["points"][-1]
    assert (point["batch"], point["requests"], point["accepted"], point["rejected"]) == (
        16,
        4,
        2.25,
        2,
    )
    total = body["total"]
    found = total["requests_per_step"], total["accepted_length"], total["rejected_experts"]
    assert found == (4, 2.25, 2)


def test_recent_is_a_minute_and_points_are_ten(tmp_path: Path) -> None:
    scheduler, stats = Scheduler(), Stats(tmp_path)
    reporter = reporter_of(scheduler, tmp_path)
    for second in range(700):
        if second < 600:
            scheduler.tally.add_vanilla(0, torch.tensor([[0, 1]]), None)
            scheduler.steps = [(1, 0.01)]
        reporter.report()
        look(stats, float(second))
    body = stats.body(state())
    assert len(body["points"]) == 600
    # the first idle second is none: it may have been a late one
    assert body["points"][0]["t"] == 99
    assert body["total"]["steps"] == 600
    assert body["recent"]["steps"] == 0
    assert body["recent"]["unique_experts"] is None


def test_replicas_add_up_and_stages_bring_their_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas, stage = [Scheduler([0, 1]), Scheduler([0, 1])], Scheduler([2])
    for scheduler in (*replicas, stage):
        for layer in scheduler.tally.row:
            scheduler.tally.add_vanilla(layer, torch.tensor([[0, 1], [2, 9]]), None)
        scheduler.steps, scheduler.bypassed["prefill"] = [(2, 0.01)], 1
    for pid, scheduler in enumerate((*replicas, stage)):
        as_process(reporter_of(scheduler, tmp_path, scheduler is not stage), pid, monkeypatch)
    stats = Stats(tmp_path)
    look(stats, 1.0)
    body = stats.body(state())
    assert body["total"]["steps"] == body["bypassed"]["prefill"] == 2
    assert body["distribution"]["unique"] == {"4": 5}
    assert [(each["layer"], each["tokens"]) for each in body["layers"]] == [(0, 4), (1, 4), (2, 2)]


def test_shadow_and_the_latency_that_it_predicts(tmp_path: Path) -> None:
    lines = [latency.Line("moe.json", 8, 10.0, 2.0), latency.Line("moe.json", 64, 99.0, 9.0)]
    scheduler, stats = Scheduler(num_experts=64), Stats(tmp_path, lines)
    logits = torch.randn(12, 64)
    served = int(route(logits, Policy.vanilla(), k=4, tally=scheduler.tally).pool.sum())
    would = int(route(logits, Policy.oea(1), k=4, tally=scheduler.shadow).pool.sum())
    scheduler.steps = [(12, 0.01)]
    reporter_of(scheduler, tmp_path).report()
    look(stats, 1.0)
    body = stats.body(state("shadow"))
    assert body["total"]["unique_experts"] == served
    prediction = body["shadow"]["total"]
    assert prediction["unique_experts"] == would < served
    assert prediction["vanilla_unique_experts"] == served
    assert prediction["bytes_saved"] == (served - would) * 100
    assert prediction["bytes_saved_share"] == pytest.approx(1 - would / served, abs=1e-4)
    assert 0 < prediction["mass_kept"] < 1
    assert body["points"][0]["shadow_unique"] == would
    told = body["latency"]
    assert (told["batch"], told["vanilla_us"], told["oea_us"]) == (
        8,
        10 + 2 * served,
        10 + 2 * would,
    )
    assert told["change"] == pytest.approx((10 + 2 * would) / (10 + 2 * served) - 1, abs=1e-4)


def test_a_latency_line_is_read_from_a_benchmark(tmp_path: Path) -> None:
    fits = [
        {"batch": 1, "slope_us": None, "intercept_us": None},
        {"batch": 16, "slope_us": 2.91, "intercept_us": 33.9},
        {"batch": 64, "slope_us": 3.0, "intercept_us": 40.0},
    ]
    path = tmp_path / "moe-qwen3-30b.json"
    path.write_text(json.dumps({"fits": fits}))
    lines = latency.read(str(path))
    assert [line.batch for line in lines] == [16, 64]
    assert latency.nearest(lines, 1.0).batch == 16
    assert latency.nearest(lines, 50.0).at(10) == 70.0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "No such file or directory"),
        ("{", "not a moe-*.json"),
        ("[]", "not a moe-*.json"),
        ('{"fits": 3}', "not a moe-*.json"),
        ('{"fits": []}', "it fitted no line"),
    ],
)
def test_a_latency_line_that_is_none(tmp_path: Path, text: str | None, why: str) -> None:
    path = tmp_path / "line.json"
    if text is not None:
        path.write_text(text)
    (problem,) = latency.problems(str(path))
    assert problem.startswith(f"latency_line={path}: {why}")
    assert "\n" not in problem
