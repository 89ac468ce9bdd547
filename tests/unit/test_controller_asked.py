"""What the controller is asked for: files of rungs, targets and floors; and what is refused, in one
line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oea_server.controller import goal, token_times
from oea_server.controller.rungs import Rungs, read
from oea_server.controller.token_times import Times, between
from oea_server.settings import Settings

SHIPPED = Path(__file__).parents[2] / "deploy/rungs/demo.json"
TOP: dict[str, Any] = {
    "name": "safe",
    "knobs": {"k0": "8"},
    "mass_kept": 1.0,
    "nats": 0.0,
    "experts": 1.0,
}
FAST: dict[str, Any] = {
    "name": "fast",
    "knobs": {"k0": "3"},
    "mass_kept": 0.9,
    "nats": 0.02,
    "experts": {"2": 0.9, "32": 0.5},
}


def written(tmp_path: Path, *rungs: Any, **more: Any) -> str:
    path = tmp_path / "rungs.json"
    path.write_text(json.dumps({"form": 1, "rungs": rungs, **more}))
    return str(path)


def asked(**knobs: Any) -> goal.Asked | None:
    return goal.asked(Settings(**knobs))


def test_what_is_shipped_is_a_file_of_rungs() -> None:
    found = read(str(SHIPPED), Settings())
    assert [rung.name for rung in found.rungs] == [
        "vanilla",
        "k0=6",
        "k0=5",
        "k0=4",
        "k0=3",
        "k0=2",
    ]


@pytest.mark.parametrize(
    ("target", "seconds", "percentile"),
    [("25ms", 0.025, None), ("0.04s", 0.04, None), ("p95:40ms", 0.04, 0.95)],
)
@pytest.mark.parametrize(
    ("floor", "mass", "nats"), [(None, 0, None), ("0.95", 0.95, None), ("0.02nats", 0, 0.02)]
)
def test_a_target_and_a_floor(
    target: str,
    seconds: float,
    percentile: float | None,
    floor: str | None,
    mass: float,
    nats: float | None,
) -> None:
    found = asked(target_tpot=target, quality_floor=floor, rungs=str(SHIPPED))
    assert found is not None
    assert (found.goal, found.percentile) == ((seconds, mass, nats), percentile)


def test_nobody_asks() -> None:
    assert asked() is None


@pytest.mark.parametrize(
    ("knobs", "line"),
    [
        ({"rungs": "x.json"}, "rungs=x.json: without target_tpot"),
        ({"quality_floor": "0.9"}, "quality_floor=0.9: without target_tpot"),
        ({"target_tpot": "25ms"}, "target_tpot=25ms: the controller moves among rungs"),
        (
            {"target_tpot": "25ms", "rungs": "/nowhere/x.json"},
            "rungs=/nowhere/x.json: No such file",
        ),
        (
            {"target_tpot": "25ms", "rungs": str(SHIPPED), "policy": "vanilla"},
            "steers policy=oea, this is policy=vanilla",
        ),
        *(
            ({"target_tpot": target, "rungs": str(SHIPPED)}, f"target_tpot={target}: not a time of")
            for target in (
                "25",
                "ms",
                "-1ms",
                "0ms",
                "61s",
                "p0:1ms",
                "p100:1ms",
                "p95",
                "1e3ms",
                "25 ms",
                "nans",
            )
        ),
        *(
            (
                {"target_tpot": "25ms", "rungs": str(SHIPPED), "quality_floor": floor},
                f"quality_floor={floor}: neither",
            )
            for floor in ("1.1", "-0.1", "95%", "0.02 nats", "nats")
        ),
    ],
)
def test_nonsense_is_one_line(knobs: dict[str, Any], line: str) -> None:
    problems = goal.problems(Settings(**knobs))
    assert len(problems) == 1
    assert line in problems[0]
    assert "\n" not in problems[0]


def test_several_workers_and_no_metrics_are_refused() -> None:
    settings = Settings(target_tpot="25ms", rungs=str(SHIPPED))
    workers, metrics = goal.problems(settings, workers=2, metrics=False)
    assert "--tokenizer-worker-num 2" in workers
    assert "--enable-metrics" in metrics
    assert goal.problems(Settings(), workers=2, metrics=False) == []


@pytest.mark.parametrize(
    ("rungs", "line"),
    [
        ([TOP], "rungs: Tuple should have at least 2 items"),
        ([FAST, TOP], "rung safe keeps more mass than fast before it: the safest comes first"),
        ([TOP, {**FAST, "nats": -1.0}], "rung fast loses less than safe before it"),
        ([{**TOP, "experts": 0.4}, FAST], "rung fast reads more experts than safe before it"),
        ([TOP, {**FAST, "name": "safe"}], "two rungs have the same name"),
        ([TOP, {**FAST, "knobs": {"k9": 3}}], "rungs.1: k9: no knob that can change while serving"),
        (
            [TOP, {**FAST, "knobs": {"policy": "pruned"}}],
            "rungs.1: policy=pruned: a rung serves oea or vanilla",
        ),
        ([TOP, {**FAST, "knobs": {"k0": "0"}}], "rung fast: "),
        (
            [TOP, {**FAST, "mass_kept": 1.5}],
            "rungs.1.mass_kept: Input should be less than or equal to 1",
        ),
        ([TOP, {**FAST, "experts": {"zero": 1.0}}], "rungs.1.experts"),
        ([TOP, {**FAST, "more": 1}], "rungs.1.more: Extra inputs are not permitted"),
        ([TOP, "fast"], "rungs.1: Input should be"),
    ],
)
def test_a_bad_file_is_one_line(rungs: list[Any], line: str, tmp_path: Path) -> None:
    path = written(tmp_path, *rungs)
    with pytest.raises(ValueError, match="rungs=") as caught:
        read(path, Settings())
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "[]", "nonsense", '{"form": 2, "rungs": []}', "null", "\x00"]
)
def test_what_is_no_file_of_rungs(content: str, tmp_path: Path) -> None:
    path = tmp_path / "rungs.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"^rungs=") as caught:
        read(str(path), Settings())
    assert "\n" not in str(caught.value)


def test_a_floor_that_no_rung_keeps_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {**TOP, "mass_kept": 0.97}, FAST)
    with pytest.raises(ValueError, match="the safest, safe, is not"):
        asked(target_tpot="25ms", rungs=path, quality_floor="0.98")


def test_experts_between_two_sizes() -> None:
    fast = Rungs.model_validate({"form": 1, "rungs": [TOP, FAST]}).rungs[1]
    assert [round(fast.share_at(batch), 3) for batch in (1, 2, 8, 32, 100)] == [
        0.9,
        0.9,
        0.7,
        0.5,
        0.5,
    ]


def test_knobs_that_a_rung_does_not_name_are_the_flags() -> None:
    found = Rungs.model_validate(
        {"form": 1, "rungs": [{**TOP, "knobs": {"policy": "vanilla"}}, FAST]}
    )
    flags = {"policy": "oea", "k0": "auto", "mix": "0.5"}
    assert found.knobs(0, flags) == {"policy": "vanilla", "k0": "auto"}
    assert found.knobs(1, flags) == {"policy": "oea", "k0": "3"}


def test_times_between_two_looks() -> None:
    before = Times(1.0, ((0.01, 100.0), (0.02, 100.0), (float("inf"), 100.0)))
    after = Times(2.5, ((0.01, 150.0), (0.02, 190.0), (float("inf"), 200.0)))
    assert between(before, after, None) == pytest.approx(0.015)
    assert between(before, after, 0.5) == pytest.approx(0.01)
    assert between(before, after, 0.9) == pytest.approx(0.02)
    assert between(before, after, 0.95) == pytest.approx(0.02)  # no bound above it
    assert between(after, after, None) is None
    assert between(token_times.NOTHING, before, None) == pytest.approx(0.01)
