"""`doctor --on CARD`: SGLang's own resolution and model classes for a card that is not here; one
process a card."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from oea_server.lab.recipes.commands import CONFIGS
from tests.documents import judge, ledger
from tests.documents.pages import Command
from tests.engine import apart

CLEAN = {name: value for name, value in apart.CLEAN.items() if not name.startswith("TRITON_")}
QWEN3 = ["--model-config", str(CONFIGS / "qwen3-30b-a3b.json")]
FP8 = ["--model-config", str(CONFIGS / "qwen3-30b-a3b-fp8.json")]
GPT_OSS = ["--model-config", str(CONFIGS / "gpt-oss-120b-bf16.json")]
MXFP4 = ["--model-config", str(CONFIGS / "gpt-oss-120b-mxfp4.json")]
LING = ["--model-config", str(CONFIGS / "ling-flash-2.0.json"), "--tp", "4"]
INT4 = ["--model-config", str(CONFIGS / "kimi-k2.6-int4.json"), "--tp", "8", "--trust-remote-code"]
V4 = ["--model-config", str(CONFIGS / "deepseek-v4-flash.json")]
LARGE = ["--model-config", str(CONFIGS / "qwen3-235b-a22b-fp8.json")]

ON_H200: dict[str, Sequence[str]] = {
    "bf16": QWEN3,
    "fp8": FP8,
    "ranks": [*LARGE, "--tp", "8", "--ep", "2"],
    "too many ranks": [*LARGE, "--tp", "8"],
    "stages": [*LARGE, "--tp", "4", "--pp-size", "2", "--ep", "2"],
    "decode worker": [*FP8, "--disaggregation-mode", "decode"],
    "DP attention": [*LARGE, "--tp", "8", "--ep", "8", "--dp", "8", "--enable-dp-attention"],
    "shared batches": [*LARGE, "--tp", "8", "--ep", "8", "--dp", "4", "--enable-dp-attention"],
    "deepep": [
        *LARGE,
        "--tp",
        "8",
        "--dp",
        "8",
        "--enable-dp-attention",
        "--moe-a2a-backend",
        "deepep",
    ],
    "dealt out": [
        *LARGE,
        "--tp",
        "8",
        "--dp",
        "4",
        "--enable-dp-attention",
        "--moe-a2a-backend",
        "deepep",
    ],
    "prefill worker": [*FP8, "--disaggregation-mode", "prefill"],
    "vanilla": [*FP8, "--oea-policy", "vanilla"],
    "shadow": [*FP8, "--oea-policy", "shadow"],
    "k0": [*FP8, "--oea-k0", "9"],
    "no such flag": [*FP8, "--no-such-flag"],
    "own code": LING,
    "own code, trusted": [*LING, "--trust-remote-code"],
    "own code, again": LING,
    "gpt-oss in 4 bits": MXFP4,
    "gpt-oss by CUTLASS": [*MXFP4, "--moe-runner-backend", "flashinfer_mxfp4"],
    "gpt-oss": GPT_OSS,
}


def asked(card: str, commands: Sequence[Sequence[str]]) -> Any:
    return apart.said("tests.engine.elsewhere", card, given=commands, environment=CLEAN)


def in_documents(card: str) -> dict[str, list[str]]:
    """What documents would have a reader serve there, or ask of it."""
    return {
        f"{command.page}: {' '.join(argv)}": argv
        for command in ledger.every()
        if command.reason is not None or getattr(ledger.way(command), "by", "") == ledger.JUDGED
        for where, argv in judge.questions(put_in(command))
        if where == card
    }


def put_in(command: Command) -> str:
    how = ledger.way(command)
    return ledger.put(command.text, how.puts) if how else command.text


@pytest.fixture(scope="module")
def on_h200() -> Any:
    questions = {**ON_H200, **in_documents("h200")}
    found = asked("h200", list(questions.values()))
    return {**found, "answers": dict(zip(questions, found["answers"], strict=True))}


@pytest.fixture(scope="module")
def on_b200() -> Any:
    by, typed = "--moe-runner-backend", list(in_documents("b200").values())
    instead = [[*MXFP4, by, runner] for runner in ("marlin", "triton")]
    int4 = [INT4, [*INT4, by, "flashinfer_trtllm"]]
    return asked(
        "b200",
        [
            QWEN3,
            FP8,
            [*FP8, by, "triton"],
            GPT_OSS,
            [*V4, "--tp", "4"],
            *int4,
            *instead,
            *typed,
            MXFP4,
        ],
    )


@pytest.mark.parametrize(
    "name",
    ["bf16", "fp8", "ranks", "stages", "decode worker", "DP attention", "shared batches", "deepep"],
)
def test_qwen3_is_routed_on_hopper_in_all_layers(on_h200: Any, name: str) -> None:
    answer = on_h200["answers"][name]
    layers = 48 if name in ("bf16", "fp8", "decode worker") else 94
    assert answer["said"] == f"routed in all {layers} layers"
    assert answer["works"]
    assert answer["rule"] == "top-8 renormalized"


def test_parallelism_is_the_flags_whatever_is_here(on_h200: Any) -> None:
    resolved = on_h200["answers"]["ranks"]["resolved"]
    assert (resolved["tp_size"], resolved["ep_size"]) == (8, 2)


def test_what_sglang_would_not_build_is_refused(on_h200: Any) -> None:
    """FP8 in blocks of 128 does not divide by eight ranks: 1536 columns are 192 on each."""
    answer = on_h200["answers"]["too many ranks"]
    assert not answer["works"]
    assert "not divisible by weight quantization block_n = 128" in answer["said"]


def test_a_prefill_worker_is_never_routed(on_h200: Any) -> None:
    answer = on_h200["answers"]["prefill worker"]
    assert (answer["problems"], answer["works"]) == ([], False)
    assert "a prefill worker has no decode steps" in answer["said"]


@pytest.mark.parametrize(
    ("name", "why"), [("vanilla", "the policy is vanilla"), ("shadow", "the policy is shadow")]
)
def test_what_is_served_as_sglang_would_is_not_routed(on_h200: Any, name: str, why: str) -> None:
    answer = on_h200["answers"][name]
    assert (answer["vanilla"], answer["works"]) == (why, False)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("k0", "above the model's top-k 8"),
        ("no such flag", "unrecognized arguments: --no-such-flag"),
        (
            "dealt out",
            "--moe-a2a-backend deepep: deals the rows of a batch out over the ranks that share it",
        ),
    ],
)
def test_what_serve_refuses_is_refused(on_h200: Any, name: str, why: str) -> None:
    answer = on_h200["answers"][name]
    assert why in "; ".join(answer["problems"])
    assert not answer["works"]


def test_on_blackwell_routers_choose_ahead_of_the_runner_that_sglang_takes(on_b200: Any) -> None:
    by_default, fp8, triton = on_b200["answers"][:3]
    assert (
        by_default["resolved"]["moe_runner_backend"]
        == fp8["resolved"]["moe_runner_backend"]
        == "flashinfer_trtllm"
    )
    assert {each["said"] for each in (by_default, fp8, triton)} == {"routed in all 48 layers"}


def test_a_change_of_sglangs_resolution_changes_the_answer(on_b200: Any) -> None:
    before, after = on_b200["answers"][-1], on_b200["changed"]
    assert before["problems"][0].startswith(
        "--moe-runner-backend flashinfer_mxfp4: on this GPU it routes gpt-oss inside"
    )
    assert (after["said"], after["resolved"]["moe_runner_backend"]) == (
        "routed in all 36 layers",
        "triton_kernel",
    )


@pytest.mark.parametrize("name", ["gpt-oss", "gpt-oss in 4 bits", "gpt-oss by CUTLASS"])
def test_gpt_oss_is_routed_on_hopper_by_the_runner_that_sglang_takes(
    on_h200: Any, name: str
) -> None:
    answer = on_h200["answers"][name]
    runner = "flashinfer_mxfp4" if "CUTLASS" in name else "triton_kernel"
    assert (answer["said"], answer["resolved"]["moe_runner_backend"]) == (
        "routed in all 36 layers",
        runner,
    )


@pytest.mark.parametrize("runner", ["marlin", "triton"])
def test_what_is_said_to_be_used_instead_on_blackwell_is_routed(on_b200: Any, runner: str) -> None:
    (answer,) = [
        each for each in on_b200["answers"] if each["resolved"].get("moe_runner_backend") == runner
    ][-1:]
    assert answer["said"] == "routed in all 36 layers"


def test_experts_in_4_bits_of_deepseek_v4_are_routed_by_the_runner_that_sglang_takes(
    on_b200: Any,
) -> None:
    answer = on_b200["answers"][4]
    assert answer["resolved"]["moe_runner_backend"] == "flashinfer_mxfp4"
    assert answer["said"].startswith(
        "routed in 40 of 43 layers: 3 of 43 MoE layers run vanilla: experts follow the"
    )


def test_int4_experts_are_steered_to_a_runner_that_takes_what_is_chosen_unless_somebody_asks(
    on_b200: Any,
) -> None:
    steered, asked_for = on_b200["answers"][5:7]
    assert (steered["said"], steered["resolved"]["moe_runner_backend"]) == (
        "routed in all 58 layers",
        "triton",
    )
    assert any(
        note.startswith("INT4 experts run by triton, not by flashinfer_trtllm")
        for note in steered["notes"]
    )
    assert asked_for["resolved"]["moe_runner_backend"] == "flashinfer_trtllm"
    assert "use --moe-runner-backend triton" in asked_for["said"]


def test_a_config_that_only_the_models_own_code_reads_is_read_where_that_is_trusted(
    on_h200: Any,
) -> None:
    refused, trusted, again = (
        on_h200["answers"][f"own code{which}"] for which in ("", ", trusted", ", again")
    )
    needs = "bailing_moe_v2 is a model whose config its own code reads: add --trust-remote-code"
    assert refused["problems"] == again["problems"] == [needs]
    assert (trusted["said"], trusted["works"]) == ("routed in all 31 layers", True)
    assert any("bailing_moe_v2 is read as its file says" in note for note in trusted["notes"])


def test_nothing_is_downloaded_and_no_gpu_is_touched(on_h200: Any, on_b200: Any) -> None:
    assert on_h200["touched"] == on_b200["touched"] == []


@pytest.mark.launch
@pytest.mark.parametrize(("flags", "code"), [([], 0), (["--oea-k0", "9"], 1)])
def test_the_command_ends_with_zero_only_where_it_would_be_routed(
    flags: list[str], code: int
) -> None:
    command = [sys.executable, "-m", "oea_server", "doctor", "--on", "h200", *FP8, *flags]
    done = subprocess.run(
        command, capture_output=True, text=True, env=CLEAN, timeout=300, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert f"model     {FP8[1]}" in done.stdout
    assert ("router    top-8 renormalized\n" in done.stdout) == (code == 0)
    assert ("✓ routed in all 48 layers" in done.stdout) == (code == 0)
    assert "only known there: " in done.stdout


def test_what_documents_would_have_a_reader_serve_is_routed(on_h200: Any, on_b200: Any) -> None:
    typed = in_documents("b200")
    answers = dict(zip(typed, on_b200["answers"][-1 - len(typed) : -1], strict=True))
    answers |= {name: on_h200["answers"][name] for name in in_documents("h200")}
    assert len(answers) > 12
    wrong = {name: answer["said"] for name, answer in answers.items() if not answer["works"]}
    assert wrong == {}
