"""Every wrong knob and combination ends the launch with one line, without importing torch or
SGLang."""

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from oea_server import serve
from oea_server.settings import SettingsError

QWEN = {"model_type": "qwen3_moe", "num_experts": 128, "num_experts_per_tok": 8}
DENSE = {"model_type": "qwen3", "hidden_size": 64}
GATES = {
    "model_type": "bailing_moe",
    "num_experts": 64,
    "num_experts_per_tok": 6,
    "multi_gate": True,
}
OWN = {"model_type": "phimoe", "num_local_experts": 16, "num_experts_per_tok": 2}

# flags, the model's config if one is given, what the message says
WRONG: list[tuple[list[str], dict[str, object] | None, str]] = [
    (
        ["--oea-policy", "oae"],
        None,
        "--oea-policy=oae: input should be 'oea', 'vanilla', 'shadow', 'pruned' or 'random'",
    ),
    (["--oea-k0", "0"], None, "k0=0: k0 0 is outside 1..64"),
    (["--oea-k0", "65"], None, "k0=65: k0 65 is outside 1..64"),
    (["--oea-k0", "three"], None, "k0='three': 'three' is not BATCH:K0"),
    (["--oea-k0", "1:8,4"], None, "'4' is not BATCH:K0"),
    (["--oea-k0", "8:4,2:6"], None, "k0=8:4,2:6: batch sizes must rise"),
    (["--oea-k0", "0:8"], None, "batch size 0 is below 1"),
    (["--oea-k0", "3; 9-4=2"], None, "layers 9-4 run backwards"),
    (["--oea-k0", "3; 4"], None, "'4' is not LAYER=SCHEDULE"),
    (["--oea-k0"], None, "--oea-k0: expected one argument"),
    (["--oea-p", "0"], None, "--oea-p=0: input should be greater than 0"),
    (["--oea-p", "1.5"], None, "--oea-p=1.5: input should be less than or equal to 1"),
    (["--oea-p", "most"], None, "--oea-p=most: input should be a valid number"),
    (["--oea-share", "1"], None, "share=1.0 is outside 0 <= share < 1"),
    (["--oea-share=-0.1"], None, "share=-0.1 is outside 0 <= share < 1"),
    (
        ["--oea-share", "1:0,16:1.5"],
        None,
        "share=1:0.0,16:1.5: share 1.5 is outside 0 <= share < 1",
    ),
    (["--oea-share", "most"], None, "share='most': 'most' is not BATCH:SHARE, as in '1:0,16:0.13'"),
    (["--oea-mix", "1.5"], None, "mix=1.5 is outside 0 <= mix <= 1"),
    (["--oea-mix", "16:0.5,4:1"], None, "mix=16:0.5,4:1.0: batch sizes must rise"),
    (["--oea-mix", "nan"], None, "'nan' is not BATCH:MIX"),
    (["--oea-policy", "vanilla", "--oea-mix", "2"], QWEN, "mix=2.0 is outside 0 <= mix <= 1"),
    (["--oea-k-max", "0"], None, "--oea-k-max=0: input should be greater than or equal to 1"),
    (["--oea-k-max", "2", "--oea-k0", "3"], None, "k_max=2 is below k0=3"),
    (["--oea-k-max", "6"], QWEN, "k_max=6 is below k0=8"),
    (["--oea-k-max", "9", "--oea-k0", "3"], QWEN, "k_max=9 is above 8"),
    (["--oea-max-rank", "0"], None, "--oea-max-rank=0: input should be greater than or equal to 1"),
    (["--oea-max-rank", "4", "--oea-k0", "5"], None, "max_rank=4 is below k0=5"),
    (["--oea-max-rank", "129"], QWEN, "max_rank=129 is above the model's 128 experts"),
    (
        ["--oea-min-batch", "0"],
        None,
        "--oea-min-batch=0: input should be greater than or equal to 1",
    ),
    (["--oea-pool", "some"], None, "--oea-pool=some: input should be 'fill', 'union' or 'budget'"),
    (
        ["--oea-pool", "budget"],
        None,
        "rank_budget=None: pool=budget needs a number of experts per rank",
    ),
    (
        ["--oea-rank-budget", "0"],
        None,
        "--oea-rank-budget=0: input should be greater than or equal to 1",
    ),
    (["--oea-rank-budget", "129"], QWEN, "rank_budget=129 is above the model's 128 experts"),
    (
        ["--oea-wish-floor", "0"],
        None,
        "--oea-wish-floor=0: input should be greater than or equal to 1",
    ),
    (["--oea-wish-floor", "few"], None, "--oea-wish-floor=few: input should be a valid integer"),
    (["--oea-wish-floor", "9"], QWEN, "wish_floor=9 is above the model's top-k 8"),
    (["--oea-draft-k0", "0"], None, "--oea-draft-k0=0: input should be greater than or equal to 1"),
    (["--oea-draft-k0", "4,2"], None, "--oea-draft-k0=4,2: input should be a valid integer"),
    (
        ["--oea-draft-k0", "9", "--speculative-algorithm", "NGRAM"],
        QWEN,
        "draft_k0=9 is above the model's top-k 8",
    ),
    (["--oea-seed", "-1"], None, "--oea-seed"),
    (
        ["--oea-policy", "shadow", "--oea-k0", "9"],
        QWEN,
        "k0=9 guarantees 9 experts, above the model's top-k 8",
    ),
    (["--oea-policy", "random", "--oea-k0", "none"], None, "k0='none': 'none' is not BATCH:K0"),
    (["--oea-k0", "3; 0-4096=2"], None, "layer 4096 is outside 0..1023"),
    (["--oea-policy", "shadow"], DENSE, "qwen3 has no experts to route"),
    (
        ["--oea-latency-line", "no/such.json"],
        None,
        "latency_line=no/such.json: No such file or directory",
    ),
    (["--oea-schedule", "no/such.json"], None, "schedule=no/such.json: No such file or directory"),
    (
        ["--oea-schedule", "pyproject.toml"],
        None,
        "schedule=pyproject.toml: not a file of 'oea-server calibrate'",
    ),
    (
        ["--oea-per-layer-metrics=some"],
        None,
        "--oea-per-layer-metrics=some: input should be a valid boolean",
    ),
    (["--oea-seed=-1"], None, "--oea-seed=-1: input should be greater than or equal to 0"),
    (
        ["--oea-allow-inactive=perhaps"],
        None,
        "--oea-allow-inactive=perhaps: input should be a valid boolean",
    ),
    (["--oea-ko", "3"], None, "--oea-ko: no such knob; did you mean --oea-k0?"),
    (["--oea-schedule-file=x"], None, "--oea-schedule-file: no such knob"),
    (["--oea-k0", "9"], QWEN, "k0=9 guarantees 9 experts, above the model's top-k 8"),
    (
        ["--oea-policy", "pruned", "--oea-k0", "9"],
        QWEN,
        "k0=9 guarantees 9 experts, above the model's top-k 8",
    ),
    ([], DENSE, "qwen3 has no experts to route"),
    ([], GATES, "bailing_moe adds biases of several gates"),
    ([], OWN, "phimoe brings its own routing function"),
    (["--enable-deterministic-inference"], None, "--enable-deterministic-inference: promises"),
    (
        ["--speculative-algorithm", "DSPARK"],
        None,
        "--speculative-algorithm DSPARK: which rows its verify pass has",
    ),
    (
        ["--speculative-algo=uno"],
        QWEN,
        "--speculative-algorithm uno: which rows its verify pass has",
    ),
    (
        ["--moe-runner-backend", "experimental_sgl_trtllm"],
        None,
        "experimental_sgl_trtllm: this runner routes inside",
    ),
    (["--enable-torch-compile"], None, "--enable-torch-compile: compiled decoding"),
    (["--attn-cp-size", "2"], None, "--attn-cp-size 2: deals rows out over ranks"),
    (
        ["--moe-a2a-backend", "ascend_tp"],
        None,
        "--moe-a2a-backend ascend_tp: where this backend takes",
    ),
    (["--enable-pdmux"], None, "--enable-pdmux: decodes on several streams"),
]


@pytest.mark.parametrize(("flags", "config", "message"), WRONG, ids=lambda value: str(value)[:60])
def test_refused_with_one_clear_line(
    tmp_path: Path, flags: list[str], config: dict[str, object] | None, message: str
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
        flags = [*flags, "--model-path", str(tmp_path)]
    with pytest.raises(SettingsError) as refusal:
        serve.check(flags)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_several_problems_are_all_named() -> None:
    with pytest.raises(SettingsError) as refusal:
        serve.check(["--enable-torch-compile", "--enable-pdmux"])
    assert len(str(refusal.value).splitlines()) == 2


def test_a_right_launch_is_let_through(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    launch = serve.check(
        [str(tmp_path), "--tp", "2", "--oea-k0", "8", "--moe-runner-backend", "triton"]
    )
    assert launch.sglang_argv == [str(tmp_path), "--tp", "2", "--moe-runner-backend", "triton"]
    assert launch.settings.k0 == "8"


@pytest.mark.parametrize("config", [DENSE, GATES, OWN])
def test_a_model_that_cannot_be_routed_is_served_only_on_demand(
    tmp_path: Path, config: dict[str, object]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert serve.check(["--model-path", str(tmp_path), "--oea-allow-inactive"])
    assert serve.check(["--model-path", str(tmp_path), "--oea-policy", "vanilla"])


def test_vanilla_takes_options_that_only_batch_aware_routing_breaks() -> None:
    assert serve.check(["--oea-policy", "vanilla", "--enable-deterministic-inference"])


def test_an_override_of_the_config_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    override = ["--json-model-override-args", '{"num_experts_per_tok": 4}']
    with pytest.raises(SettingsError, match="above the model's top-k 4"):
        serve.check(["--model-path", str(tmp_path), "--oea-k0", "5", *override])


def test_being_left_out_of_the_plug_in_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_PLUGINS", "oea_cpu,other")
    with pytest.raises(SettingsError, match="SGLANG_PLUGINS=oea_cpu,other: leaves out oea"):
        serve.check([])


def test_a_platform_that_leaves_us_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_PLATFORM", "another")
    with pytest.raises(SettingsError, match="SGLANG_PLATFORM=another: leaves out oea-server"):
        serve.check([])
    monkeypatch.setenv("SGLANG_PLATFORM", "oea_cpu")
    assert serve.check([])


@pytest.mark.parametrize(
    "value", ["oea_server.engine.gone:activate", "oea_server.engine.plugin:gone"]
)
def test_an_entry_point_that_cannot_be_loaded_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = EntryPoint("oea", value, "sglang.srt.plugins")
    monkeypatch.setattr(
        serve, "entry_points", lambda **of: [broken] if of["name"] == "oea" else entry_points(**of)
    )
    with pytest.raises(
        SettingsError, match=rf"^entry point sglang\.srt\.plugins:oea: {value} cannot be loaded"
    ):
        serve.check([])


def test_the_command_refuses_before_anything_heavy_is_imported() -> None:
    script = (
        "import sys\n"
        "from oea_server.cli import app\n"
        "sys.argv = ['oea-server', 'serve', '--oea-p', '3', '--enable-metrics']\n"
        "try: app()\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, sorted({'torch', 'sglang', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.stdout.strip() == "2 []"
    assert done.stderr.strip() == "oea-server: --oea-p=3: input should be less than or equal to 1"
