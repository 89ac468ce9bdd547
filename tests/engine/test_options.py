"""Every option of the installed SGLang is refused, or has a reason why a router's rows stay the
step's."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from oea_server_demo import MODEL

from oea_server import serve
from oea_server.engine import conflicts, gathered, launch, model_init, options, runtime
from oea_server.engine.options_apart import APART
from oea_server.engine.routers import Router
from oea_server.settings import Settings, SettingsError

CPU = torch.device("cpu")
SAMPLES = {
    "moe_runner_backend": "experimental_sgl_trtllm",
    "moe_a2a_backend": "ascend_tp",
    "decoupled_spec_role": "verifier",
}
"""Values that clash, of options for which not every value does."""


@pytest.fixture(scope="module")
def parser(plugged: None) -> argparse.ArgumentParser:
    """SGLang's own."""
    from sglang.srt.server_args import ServerArgs

    made = argparse.ArgumentParser()
    ServerArgs.add_cli_args(made)
    return made


def fields() -> dict[str, Any]:
    from sglang.srt.server_args import ServerArgs

    return conflicts.fields(ServerArgs)


def has(option: str) -> bool:
    return option in fields()


def test_the_table_names_every_option_of_this_sglang(plugged: None) -> None:
    assert len(fields()) > 400
    assert set(fields()) - conflicts.names() == set(), (
        "look at what they mean for the rows of a step"
    )


def test_the_table_names_none_twice_and_says_why() -> None:
    named = Counter([each.option for each in options.CONFLICTS])
    named.update(list(options.KEPT))
    named.update(name for group in APART.values() for name in group)
    assert [name for name, times in named.items() if times > 1] == []
    assert all([*options.KEPT.values(), *APART, *(each.why for each in options.CONFLICTS)])


def test_an_option_that_no_table_knows_is_told_once_it_is_set(plugged: None) -> None:
    base: Any = type(server_args())

    class ServerArgs(base):  # type: ignore[misc]
        deal_rows_out: int = 1

    if dataclasses.is_dataclass(base):  # up to 0.5.21
        dataclasses.dataclass(ServerArgs)
    args = ServerArgs(model_path=str(MODEL))
    assert conflicts.unknown(args) == []
    args = ServerArgs(model_path=str(MODEL), deal_rows_out=2)
    assert conflicts.fields(ServerArgs)["deal_rows_out"] == 1
    assert conflicts.unknown(args) == ["deal_rows_out"]


def test_the_early_look_knows_every_spelling(parser: argparse.ArgumentParser) -> None:
    refused = {each.option for each in options.CONFLICTS}
    seen = set()
    for action in parser._actions:
        for flag in action.option_strings:
            sample = SAMPLES.get(action.dest, "amd" if "monokernel-backend" in flag else "2")
            words = [flag] if action.nargs == 0 else [flag, sample]
            found = conflicts.find_in_flags([*words, "--dp-size", "2"])
            assert len(found) == (action.dest in refused), (words, found)
            seen.add(action.dest)
    assert {"speculative_algorithm", "moe_dp_size", "enable_torch_compile"} <= seen & refused


@pytest.mark.parametrize(
    ("flags", "option"),
    [
        ("--speculative-algo UNO", "speculative_algorithm"),
        ("--speculative-algo=DSPARK", "speculative_algorithm"),
        ("--moe-a2a ascend_tp", "moe_a2a_backend"),
        ("--enable-determ", "enable_deterministic_inference"),
        ("--attention-context-parallel 2", "attn_cp_size"),
    ],
)
def test_so_it_does_abbreviations_that_sglangs_parser_takes(
    parser: argparse.ArgumentParser, flags: str, option: str
) -> None:
    given = parser.parse_args(["--model-path", "m", *flags.replace("=", " ").split()])
    assert getattr(given, option) != parser.get_default(option)
    (found,) = conflicts.find_in_flags(flags.split())
    assert found.startswith("--" + option.replace("_", "-"))


@pytest.mark.parametrize(
    "flags",
    [
        "--dp-size 2",
        "--data-parallel-size 4",
        "--tp 2 --ep 2",
        "--pp-size 2",
        "--moe-a2a-backend none",
        "--moe-a2a-backend deepep",
        "--moe-runner-backend triton",
        "--attn-dp-size 1",
        "--attn-dp-size 4",
        "--enable-dp-attention --dp-size 4 --enable-dp-lm-head",
        "--attn-cp-size 1 --moe-dp-size 1 --dwdp-size 1",
        "--enable-",  # too short for SGLang, which says so
        "--enable-dp-lm-head --speculative-num-steps 3",
        "--decoupled-spec-role null",
        "--speculative-algorithm EAGLE --speculative-eagle-topk 4",
        "--speculative-algo NEXTN",
        "--speculative-algorithm ngram",
    ],
)
def test_what_leaves_the_rows_alone_is_not_refused(flags: str) -> None:
    assert conflicts.find_in_flags(flags.split()) == []


def server_args(*flags: str) -> Any:
    """As `sglang serve` makes them, and resolves them before it starts anything."""
    from sglang.srt.server_args import prepare_server_args

    args = prepare_server_args(["--model-path", str(MODEL), *flags])
    getattr(args, "resolve_once", lambda: None)()
    return args


@pytest.mark.parametrize(
    ("flags", "refused"),
    [
        ("--tp 2 --dp 2 --enable-dp-attention", None),
        ("--tp 2 --attn-dp-size 2", None),
        (
            "--tp 4 --dp 2 --enable-dp-attention --attn-cp-size 2",
            "--attn-cp-size 2: deals rows out over ranks",
        ),
    ],
)
def test_dp_attention_is_served_unless_something_else_deals_its_rows_out(
    plugged: None, flags: str, refused: str | None
) -> None:
    if "attn-dp" in flags and not has("attn_dp_size"):
        pytest.skip("this SGLang has no --attn-dp-size")
    args = server_args(*flags.split())
    found = launch.judge(Settings(), args).problems
    assert [line.startswith(str(refused)) for line in found] == ([] if refused is None else [True])
    assert len(conflicts.about_rows(args)) == len(found)
    if refused is None:
        assert serve.check(flags.split()).settings == Settings()
    else:
        with pytest.raises(SettingsError, match="deals rows out"):  # before SGLang is imported
            serve.check(flags.split())


def test_an_engine_started_from_python_is_judged_by_the_same_values(plugged: None) -> None:
    from sglang.srt.server_args import ServerArgs

    args = ServerArgs(model_path=str(MODEL), tp_size=2, attn_cp_size=2)
    getattr(args, "resolve_once", lambda: None)()
    assert len(conflicts.find_in_server_args(args)) == 1


def test_a_weight_file_that_is_cut_is_refused_unless_no_weights_are_read(
    plugged: None, tmp_path: Path
) -> None:
    model = shutil.copytree(MODEL, tmp_path / "model")
    os.truncate(model / "model.safetensors", 1000)
    for settings in (Settings(), Settings(policy="vanilla")):
        (line,) = launch.judge(settings, server_args("--model-path", str(model))).problems
        assert line.startswith(
            f"{model / 'model.safetensors'}: no whole safetensors file of 1000 bytes"
        )
    assert (
        launch.judge(
            Settings(), server_args("--model-path", str(model), "--load-format", "dummy")
        ).problems
        == []
    )


@pytest.mark.parametrize("flags", ["--tp 2", "--tp 2 --dp-size 2", "--tp 2 --moe-dense-tp-size 1"])
def test_resolved_arguments_that_leave_the_rows_alone_pass(plugged: None, flags: str) -> None:
    args = server_args(*flags.split())
    assert conflicts.find_in_server_args(args) == []
    assert conflicts.about_rows(args) == []


def allow(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, found: list[Router], **given: Any
) -> tuple[runtime.Runtime, list[Router]]:
    """What a scheduler makes of the arguments that it was given."""
    from sglang.srt import runtime_context

    monkeypatch.setattr(runtime_context, "get_server_args", lambda: given["args"])
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)  # as in each scheduler
    monkeypatch.setattr(conflicts, "resolved", lambda args: args)
    monkeypatch.setattr(conflicts, "unknown", lambda args: [])
    monkeypatch.setattr(gathered, "ranks", lambda: None)
    now = runtime.Runtime(settings)
    return now, model_init.allowed(now, found)


ROUTERS = [Router(5, 4, True, None)]


def test_a_scheduler_refuses_what_its_launcher_let_through(
    plugged: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "kill", lambda pid, signum: None)
    with pytest.raises(SystemExit):
        allow(monkeypatch, Settings(), ROUTERS, args=SimpleNamespace(moe_dp_size=2))
    assert "oea-server: refusing to start: --moe-dp-size 2: ranks hold" in capsys.readouterr().err


def test_a_vanilla_server_of_unknown_rows_serves_counts_nothing_and_stays_vanilla(
    plugged: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, found = allow(
        monkeypatch, Settings(policy="vanilla"), ROUTERS, args=SimpleNamespace(moe_dp_size=2)
    )
    assert now.adopt(found, 16, CPU) == []
    assert (now.routers, now.steering.active, now.steering.policies) == ({}, False, ())
    assert "1 of 1 MoE layers run vanilla: --moe-dp-size 2" in now.steering.reason
    assert "--moe-dp-size 2" in str(now.steering.change(Settings()))


@pytest.mark.parametrize("layers", [1, 0])
def test_a_vanilla_server_that_promises_no_batch_routing_counts_and_stays_vanilla(
    plugged: None, monkeypatch: pytest.MonkeyPatch, layers: int
) -> None:
    """In every pipeline stage: all take a change, or none."""
    args = SimpleNamespace(enable_deterministic_inference=True)
    now, found = allow(monkeypatch, Settings(policy="vanilla"), ROUTERS[:layers], args=args)
    assert found == ROUTERS[:layers]
    assert now.adopt(found, 16, CPU, k_elsewhere=4) == []
    assert now.steering.policies == ("vanilla",)
    assert "--enable-deterministic-inference: promises" in str(now.steering.change(Settings()))
    assert now.steering.settings.policy == "vanilla"
