"""A schedule keeps within its budget at every batch size, and the server takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oea_server.observe.latency import Line
from oea_server.quality import calibrate
from oea_server.routing.schedule import default_schedule

K = 8
RESULTS = Path(__file__).parents[3] / "benchmarks/results/2-core-x86_64"
LOSSES: dict[int, tuple[float, ...]] = {
    1: (0.0,) * 7,
    4: (0.4, 0.2, 0.08, 0.03, 0.01, 0.004, 0.001),
    16: (0.3, 0.1, 0.02, 0.008, 0.003, 0.001, 0.0005),
}


def record(losses: dict[int, tuple[float, ...]] = LOSSES) -> dict[str, Any]:
    rows = []
    for batch, increases in losses.items():
        arms = {**{f"oea:{k0}": each for k0, each in enumerate(increases, start=1)}, "vanilla": 0.0}
        for arm, value in arms.items():
            k0 = K if arm == "vanilla" else int(arm[4:])
            high = value + (0.002 if value else 0.0)
            rows.append({"batch": batch, "arm": arm, "increase": [value, value, high], "unique": [6.0 * k0, 0, 0]})
    about = dict.fromkeys(("command", "model", "text", "seed", "machine", "versions"), "?")
    return {"batches": list(losses), "rows": rows, **about}


def test_the_smallest_k0_within_the_budget() -> None:
    choices = calibrate.choose(record(), 0.015, K)
    assert [(each.batch, each.k0) for each in choices] == [(1, 8), (4, 5), (16, 4)]
    assert all(each.high <= 0.015 for each in choices)
    assert str(calibrate.schedule(choices, K)) == "1:8,4:5,16:4"


def test_a_lone_token_gets_vanilla_whatever_the_budget() -> None:
    assert calibrate.choose(record(), 100.0, K)[0].k0 == K


def test_a_budget_of_nothing_buys_nothing() -> None:
    choices = calibrate.choose(record(), 0.0, K)
    assert str(calibrate.schedule(choices, K)) == "8"


def test_k0_never_rises_with_the_batch() -> None:
    """Chance let the smaller batch lose less."""
    lucky = record({4: LOSSES[16], 16: LOSSES[4]})
    assert [each.k0 for each in calibrate.choose(lucky, 0.015, K)] == [5, 5]


def test_it_says_what_a_layer_gains() -> None:
    line = Line("moe.json", 16, 10.0, 2.0)
    choice = calibrate.choose(record(), 0.015, K, [line])[-1]
    assert choice.latency == pytest.approx((10 + 2 * 24) / (10 + 2 * 48))


@pytest.mark.parametrize(("text", "nats"), [("0.02", 0.02), ("0", 0.0), ("1%", 0.025), (" 2.5 % ", 0.0625)])
def test_a_budget_is_nats_or_a_share_of_vanillas_loss(text: str, nats: float) -> None:
    assert calibrate.budget(text, {"rows": [{"arm": "vanilla", "loss": [2.5, 2.4, 2.6]}]}) == pytest.approx(nats)


@pytest.mark.parametrize("text", ["-1", "nan", "%", "one", "1%%"])
def test_another_budget_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"--budget={text}: is not a number of nats"):
        calibrate.budget(text, {"rows": []})


def test_the_shipped_default_is_what_the_committed_evaluation_gives() -> None:
    """At 1 % of vanilla's loss, and nothing below 3 of 8, the smallest k0 that the paper measured."""
    kept = json.loads((RESULTS / "eval.json").read_text())
    found = calibrate.schedule(calibrate.choose(kept, calibrate.budget("1%", kept), K), K)
    assert {batch: k0 for batch, k0 in found.default if k0 >= 3} == dict(default_schedule(K).default)
    assert min(k0 for _, k0 in found.default) < 3  # so that the bound above is one


def test_an_evaluation_without_oea_is_refused() -> None:
    bare = record()
    bare["rows"] = [row for row in bare["rows"] if row["arm"] == "vanilla"]
    with pytest.raises(ValueError, match="no arms oea:K0 at B=16"):
        calibrate.choose(bare, 0.01, K)


def test_the_file_says_where_it_is_from(tmp_path: Path) -> None:
    choices = calibrate.choose(record(), 0.015, K)
    calibrate.save(tmp_path / "schedule.json", record(), choices, 0.015, K)
    content = json.loads((tmp_path / "schedule.json").read_text())
    assert content["k0"] == "1:8,4:5,16:4"
    assert content["budget_nats"] == 0.015
    assert set(content["from"]) == {"command", "model", "text", "seed", "machine", "versions"}
