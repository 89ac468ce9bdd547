"""A schedule keeps within its budget at every batch size, and the server takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oea_server.lab.quality import calibrate
from oea_server.observe.latency import Line
from oea_server.routing.schedule import default_schedule
from oea_server.settings import Settings

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
            rows.append(
                {
                    "batch": batch,
                    "arm": arm,
                    "increase": [value, value, high],
                    "unique": [6.0 * k0, 0, 0],
                }
            )
    about = dict.fromkeys(("command", "model", "text", "seed", "machine", "versions"), "?")
    return {"batches": list(losses), "rows": rows, **about}


def test_the_smallest_k0_within_the_budget() -> None:
    choices = calibrate.choose(record(), 0.015, K)
    assert [(each.batch, each.k0) for each in choices] == [(1, 8), (4, 5), (16, 4)]
    assert all(each.high <= 0.015 for each in choices)
    assert str(calibrate.schedules(choices, K)["k0"]) == "1:8,4:5,16:4"


def test_a_lone_token_gets_vanilla_whatever_the_budget() -> None:
    assert calibrate.choose(record(), 100.0, K)[0].k0 == K


def test_a_budget_of_nothing_buys_nothing() -> None:
    choices = calibrate.choose(record(), 0.0, K)
    assert str(calibrate.schedules(choices, K)["k0"]) == "8"


def test_k0_never_rises_with_the_batch() -> None:
    """Chance let the smaller batch lose less."""
    lucky = record({4: LOSSES[16], 16: LOSSES[4]})
    assert [each.k0 for each in calibrate.choose(lucky, 0.015, K)] == [5, 5]


MIXED = {
    4: {
        "oea:4": (0.03, 24.0),
        "oea:8/share=0.1/mix=0.5": (0.012, 22.0),
        "oea:8/share=0.2/mix=0.5": (0.05, 14.0),
    },
    16: {
        "oea:3": (0.013, 18.0),
        "oea:8/share=0.1/mix=0.5": (0.008, 17.0),
        "oea:8/share=0.2/mix=0.5": (0.014, 12.0),
    },
}


def mixed(**more: tuple[float, float]) -> dict[str, Any]:
    """A record with arms of more than a k0, and what no schedule can hold."""
    about = dict.fromkeys(("command", "model", "text", "seed", "machine", "versions"), "?")
    others = {
        "vanilla": (0.0, 48.0),
        "share:0.2": (0.0, 1.0),
        "oea:3/p=0.5": (0.0, 1.0),
        "oea:9": (0.0, 1.0),
        **more,
    }
    rows = [
        {"batch": batch, "arm": arm, "increase": [value] * 3, "unique": [reads, 0, 0]}
        for batch, arms in MIXED.items()
        for arm, (value, reads) in {**arms, **others}.items()
    ]
    return {"batches": list(MIXED), "rows": rows, **about}


def test_the_rule_that_reads_least_within_the_budget_may_have_a_share_and_a_mixture() -> None:
    choices = calibrate.choose(mixed(), 0.015, K)
    assert [(each.batch, each.k0, each.share, each.mix) for each in choices] == [
        (4, 8, 0.1, 0.5),
        (16, 8, 0.2, 0.5),
    ]
    assert (
        calibrate.flags(choices, K)
        == "--oea-k0 '8' --oea-share '1:0.0,4:0.1,16:0.2' --oea-mix '1:1.0,4:0.5'"
    )
    assert calibrate.flags(calibrate.choose(record(), 0.015, K), K) == "--oea-k0 '1:8,4:5,16:4'"


def test_a_smaller_batch_reads_at_least_what_the_larger_ones_rule_would() -> None:
    """Chance let the sharper share lose less there."""
    lucky = mixed()
    sharp = next(
        row for row in lucky["rows"] if (row["batch"], row["arm"]) == (4, "oea:8/share=0.2/mix=0.5")
    )
    sharp["increase"] = [0.0] * 3
    assert [each.share for each in calibrate.choose(lucky, 0.0125, K)] == [0.1, 0.1]


def test_a_server_routes_by_the_file(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    calibrate.save(path, mixed(), calibrate.choose(mixed(), 0.015, K), 0.015, K)
    policy = Settings(schedule=str(path)).policy_for(K)
    found = [policy.numbers(batch, 0, k=K, num_experts=64) for batch in (2, 4, 15, 16, 90)]
    assert [(each.floor, each.share, each.mix) for each in found] == [
        *((8, 0.0, 1.0), (8, 0.1, 0.5), (8, 0.1, 0.5)),
        *((8, 0.2, 0.5), (8, 0.2, 0.5)),
    ]


def test_it_says_what_a_layer_gains() -> None:
    line = Line("moe.json", 16, 10.0, 2.0)
    choice = calibrate.choose(record(), 0.015, K, [line])[-1]
    assert choice.latency == pytest.approx((10 + 2 * 24) / (10 + 2 * 48))


@pytest.mark.parametrize(
    ("text", "nats"), [("0.02", 0.02), ("0", 0.0), ("1%", 0.025), (" 2.5 % ", 0.0625)]
)
def test_a_budget_is_nats_or_a_share_of_vanillas_loss(text: str, nats: float) -> None:
    assert calibrate.budget(
        text, {"rows": [{"arm": "vanilla", "loss": [2.5, 2.4, 2.6]}]}
    ) == pytest.approx(nats)


@pytest.mark.parametrize("text", ["-1", "nan", "%", "one", "1%%"])
def test_another_budget_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"--budget={text}: is not a number of nats"):
        calibrate.budget(text, {"rows": []})


def test_the_shipped_default_is_what_the_committed_evaluation_gives() -> None:
    """At 1 % of vanilla's loss, and nothing below 3 of 8, the smallest k0 that the paper
    measured."""
    kept = json.loads((RESULTS / "eval.json").read_text())
    found = calibrate.schedules(calibrate.choose(kept, calibrate.budget("1%", kept), K), K)["k0"]
    assert {batch: k0 for batch, k0 in found.default if k0 >= 3} == dict(
        default_schedule(K).default
    )
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
