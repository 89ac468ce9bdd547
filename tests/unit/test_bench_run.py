"""Small runs from end to end: the record's fields, and documents that say what the record says."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from oea_server.lab.bench import bandwidth, moe, report, routers, timing, worth
from oea_server.lab.bench.commands import app
from oea_server.lab.bench.experts import Layer, make_weights
from oea_server.lab.bench.fit import fit
from oea_server.lab.bench.logits import Uniform
from oea_server.lab.bench.paper import QWEN3_30B
from oea_server.lab.bench.presets import PRESETS, Preset
from oea_server.lab.bench.sglang_kernels import torch_router
from oea_server.lab.records import options, record, tables

CPU = torch.device("cpu")
ROW = {"policy", "batch", "unique_experts", "latency_us", "latency_us_quartiles", "floor_us"}


@pytest.fixture(autouse=True, scope="module")
def _small_and_without_gpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth, "CPU_BYTES", 1 << 24)
        patch.setattr(timing, "pick_device", lambda: CPU)
        yield


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    tmp_path = tmp_path_factory.mktemp("kept")
    words = [
        "moe",
        "--preset",
        "demo",
        "--batch",
        "2,16",
        "--policies",
        "vanilla,random,pruned:3,oea:3,oea:5",
    ]
    result = CliRunner().invoke(
        app, [*words, "--repeats", "3", "--seed", "4", "--out", str(tmp_path / "new" / "folder")]
    )
    assert result.exit_code == 0, result.output
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == [
        "moe-demo.json",
        "moe-demo.md",
        "moe-demo.png",
    ]
    return {
        "json": json.loads((folder / "moe-demo.json").read_text()),
        "md": (folder / "moe-demo.md").read_text(),
        "png": (folder / "moe-demo.png").read_bytes(),
        "said": result.stdout,
        "folder": str(tmp_path),
    }


def cells(markdown: str, title: str) -> list[list[str]]:
    """The rows of the table below a title."""
    section = markdown.partition(f"\n## {title}")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_moe_keeps_a_record_and_documents_made_from_it(kept: dict[str, Any]) -> None:
    made = kept["json"]
    rows = made["rows"]
    labels = ["vanilla", "random", "pruned:3", "oea:3", "oea:5"]
    assert [(row["policy"], row["batch"]) for row in rows] == [
        (label, batch) for batch in (2, 16) for label in labels
    ]
    for row in rows:
        assert row.keys() > ROW | {"routing_us", "routing_share", "over_vanilla"}
        low, high = row["latency_us_quartiles"]
        assert 0 < low <= row["latency_us"] <= high
        assert row["floor_us"] == pytest.approx(
            row["unique_experts"] * made["memory_us_per_expert"]
        )
    woken = {(row["policy"], row["batch"]): row["unique_experts"] for row in rows}
    assert (
        woken["oea:3", 16]
        == woken["pruned:3", 16]
        < woken["oea:5", 16]
        < woken["vanilla", 16]
        < woken["random", 16]
    )
    assert all(row["over_vanilla"] == 1 for row in rows if row["policy"] == "vanilla")

    shown = cells(kept["md"], "Policies")
    assert [(cell[0], int(cell[1])) for cell in shown] == [
        (row["policy"], row["batch"]) for row in rows
    ]
    for cell, row in zip(shown, rows, strict=True):
        low, high = row["latency_us_quartiles"]
        spread = f"{tables.micro(row['latency_us'])} ({tables.micro(low)}–{tables.micro(high)})"
        assert cell[2:5] == [f"{row['unique_experts']:.1f}", spread, f"{row['over_vanilla']:.2f}"]
        assert cell[7] == tables.micro(row["floor_us"])
    assert report.markdown(made) == kept["md"]
    assert kept["md"] in kept["said"]
    assert kept["png"].startswith(b"\x89PNG")


def test_the_record_says_how_and_not_whose(kept: dict[str, Any]) -> None:
    made = kept["json"]
    assert (
        made["command"] == "oea-server bench moe --preset demo --batch 2,16 --policies"
        " vanilla,random,pruned:3,oea:3,oea:5 --logits correlated --repeats 3 --seed 4"
    )
    assert made["seed"] == 4
    assert made["versions"].keys() > {"python", "oea-server", "torch"}
    assert made["machine"]["name"] == record.default_folder(CPU).name
    assert made["bandwidth"]["gb_per_s"] > 0
    text = json.dumps(made)
    assert kept["folder"] not in text
    assert str(Path.home()) not in text
    fitted = {each["batch"]: each for each in made["fits"]}
    assert set(fitted) == {2, 16}
    assert [each["batch"] for each in made["worth"]] == [2, 16]
    for each, again in zip(made["worth"], worth.judged(made), strict=True):
        assert (each["verdict"], each["why"]) == (again["verdict"], again["why"])
        assert (
            f"- Batch {each['batch']}: **{worth.WORDS[each['verdict']]}**; {each['why']}."
            in kept["said"]
        )
    assert {row["policy"]: row["paper_experts"] for row in made["beside_paper"]} == {
        "oea:3": 25.1,
        "oea:5": 35.1,
        "vanilla": 48.8,
    }


def test_a_trace_names_its_file_and_the_record(tmp_path: Path) -> None:
    np.save(
        tmp_path / "own.npy", np.random.default_rng(0).normal(size=(4, 4, 128)).astype(np.float32)
    )
    words = [
        "--preset",
        "demo",
        "--batch",
        "4",
        "--policies",
        "oea:3",
        "--repeats",
        "3",
        "--out",
        str(tmp_path),
    ]
    result = CliRunner().invoke(app, ["moe", *words, "--trace", str(tmp_path / "own.npy")])
    assert result.exit_code == 0, result.output
    made = json.loads((tmp_path / "moe-demo-trace.json").read_text())
    assert " --trace own.npy " in made["command"]
    assert "--logits" not in made["command"]
    assert made["rows"][0]["over_vanilla"] is None
    assert made["fits"][0]["slope_us"] is None


def test_router_measures_who_is_there_and_says_who_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(k: int) -> Any:
        raise ImportError("no such\nlibrary")

    monkeypatch.setattr(routers, "ON_CPU", {"absent": absent, "torch": torch_router})
    words = [
        "--batch",
        "1,4",
        "--experts",
        "16,32",
        "--policies",
        "vanilla,oea:3",
        "--repeats",
        "3",
    ]
    result = CliRunner().invoke(
        app, ["router", *words, "--logits", "uniform", "--out", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    made = json.loads((tmp_path / "router-uniform.json").read_text())
    assert made["reference"] == "torch"
    assert made["unavailable"].keys() == {
        "absent",
        "sglang-triton",
        "sglang-compiled",
        "flashinfer",
    }
    assert made["unavailable"]["absent"].startswith("ImportError: no such library (batch ")
    assert len(made["rows"]) == 2 * 2 * 3
    for row in made["rows"]:
        assert row.keys() > ROW | {"router", "experts", "over_reference"}
        if row["policy"] == "vanilla":
            assert row["same_choice"] == 1
    page = (tmp_path / "router-uniform.md").read_text()
    assert page == report.markdown(made)
    for name, why in made["unavailable"].items():
        assert f"Not measured: {name}: {why}." in page
    for experts in (16, 32):
        rows = [row for row in made["rows"] if row["experts"] == experts]
        shown = cells(page, f"{experts} experts")
        assert [cell[:4] for cell in shown] == [
            [row["router"], row["policy"], str(row["batch"]), str(row["unique_experts"])]
            for row in rows
        ]
        assert [cell[4].split(" ")[0] for cell in shown] == [
            tables.micro(row["latency_us"]) for row in rows
        ]
    assert (tmp_path / "router-uniform.png").read_bytes().startswith(b"\x89PNG")


def test_a_rank_runs_its_own_experts_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = PRESETS["qwen3-235b-ep8"]
    assert (preset.local_experts, preset.ranks) == (16, 8)
    seen: list[torch.Tensor] = []

    def run(x: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        seen.append(ids)
        return x

    monkeypatch.setattr(moe, "open_layer", lambda *_: Layer("none", "a test", run))
    made = moe.measure(
        preset,
        [16],
        options.policies("--policies", "vanilla,oea:3,fill:3,budget:6", k=8, seed=0, ranks=8),
        Uniform(),
        repeats=5,
        seed=0,
        reader=bandwidth.Reader(CPU),
        device=CPU,
    )
    for ids in seen:
        assert int(ids.min()) == -1
        assert int(ids.max()) < 16
    own = [ids[ids >= 0].unique().numel() for ids in seen]
    for row in made["rows"]:
        assert 0 < row["unique_experts"] <= row["unique_experts_busiest_rank"] <= 16
        assert row["unique_experts_busiest_rank"] < row["unique_experts_all_ranks"]
        assert min(own) <= row["unique_experts"] <= max(own)
    plain, filled = (
        next(row for row in made["rows"] if row["policy"] == each) for each in ("oea:3", "fill:3")
    )
    assert filled["unique_experts_busiest_rank"] == plain["unique_experts_busiest_rank"]
    assert filled["unique_experts_all_ranks"] > plain["unique_experts_all_ranks"]
    assert filled["busiest_us"] is not None
    facts = {"machine": record.machine(CPU), "versions": record.versions(), "command": "none"}
    page, picture = report.save(facts | made, tmp_path, "moe-ep8")[1:]
    assert "busiest rank" in page.read_text()
    assert picture.stat().st_size > 1000


def test_a_line_is_found_exactly_and_not_where_there_is_none() -> None:
    xs = [25.1, 29.9, 35.1, 48.8]
    line = fit(xs, [33.9 + 2.91 * x for x in xs])
    assert line is not None
    assert (line.intercept, line.slope, line.r2) == pytest.approx((33.9, 2.91, 1.0))
    assert line.at(10) == pytest.approx(63.0)
    skewed = fit([0, 1, 2], [0, 0, 3])
    assert skewed is not None
    assert (skewed.slope, skewed.intercept, skewed.r2) == pytest.approx((1.5, -0.5, 0.75))
    assert fit([8.0, 8.1, 8.0], [1, 2, 3]) is None
    assert fit([1, 9], [1, 2]) is None


def test_turns_are_fair() -> None:
    names = ["a", "b", "c"]
    orders = [order for repetition, order in timing.turns(names, 6 * 4) if repetition >= 0]
    assert all(sorted(order) == names for order in orders)
    for place in range(3):
        assert {
            name: [order[place] for order in orders].count(name) for name in names
        } == dict.fromkeys(names, 8)
    assert [repetition for repetition, _ in timing.turns(names, 2)] == [-2, -1, 0, 1]


def test_weights_are_plain_numbers_of_the_right_shape() -> None:
    preset = Preset("tiny", 8, 2, 32, 16, 2, QWEN3_30B, False, "")
    w13, w2 = make_weights(preset, CPU, 0)
    assert (w13.shape, w2.shape) == ((4, 32, 32), (4, 32, 16))
    assert w13.nbytes + w2.nbytes == 4 * preset.expert_bytes
    for weights in (w13, w2):
        assert weights.dtype == torch.bfloat16
        assert float(weights.abs().min()) > 1e-7
        assert not torch.equal(weights[0], weights[1])


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm4-80gb"),
        ("AMD MI300X", "mi300x"),
    ],
)
def test_folders_are_named_after_the_gpu(gpu: str, name: str) -> None:
    assert record.slug(gpu) == name
    assert re.fullmatch(r"[a-z0-9-]+", record.slug(gpu))
