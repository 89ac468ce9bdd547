"""`doctor` and `serve` as commands, on what both refuse before SGLang is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from oea_server_demo import MODEL

from oea_server.doctor import located, without_model_type

PHI = {"architectures": ["PhiMoEForCausalLM"], "model_type": "phimoe", "num_local_experts": 8}
OWN = "phimoe brings its own routing function, which is not supported yet"
WHY = f"{OWN}; --oea-allow-inactive serves it vanilla"
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("OEA_", "SGLANG_PLUGINS"))
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "oea_server", *command)
    return subprocess.run(
        command, capture_output=True, text=True, env=CLEAN, timeout=120, check=False
    )


def test_a_router_that_cannot_be_handled_is_refused_by_both_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**PHI, "num_experts_per_tok": 2}))
    served, examined = (
        run("serve", "--model-path", str(tmp_path)),
        run("doctor", "--model-path", str(tmp_path)),
    )
    assert (served.returncode, examined.returncode) == (2, 1)
    assert served.stderr == f"oea-server: {WHY}\n"
    assert f"✗ {WHY}\n" in examined.stdout
    assert f"model     {tmp_path}\n" in examined.stdout


@pytest.mark.parametrize(
    ("flags", "where"),
    [
        (["--oea-k0", "99"], str(MODEL)),
        (
            ["no/such-model", "--oea-k0", "99"],
            "no/such-model, no directory, and not in the hub's cache",
        ),
        (["--oea-nonsense", "--model=no/such-model"], "no/such-model, no directory"),
        (["--oea-nonsense", "--config", "no-such.yaml"], "unknown"),
    ],
)
def test_refusals_name_the_model_that_was_judged(flags: list[str], where: str) -> None:
    done = run("doctor", *flags)
    assert done.returncode == 1
    assert f"model     {where}" in done.stdout


def test_a_hub_name_is_shown_with_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "snapshots" / "abc" / "config.json"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(config))
    assert located("some/model") == f"some/model, in {config.parent}"


def test_what_only_sglangs_own_command_reads_is_left_out() -> None:
    assert without_model_type(["--tp", "2", "--model-type", "llm", "--dp", "1"]) == [
        "--tp",
        "2",
        "--dp",
        "1",
    ]
    assert without_model_type(["--model-type=llm", "--tp", "2"]) == ["--tp", "2"]
