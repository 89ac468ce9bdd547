"""A schedule keeps within its budget at every batch size, and the server takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oea_server.observe.latency import Line
from oea_server.quality import calibrate

K = 8
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
