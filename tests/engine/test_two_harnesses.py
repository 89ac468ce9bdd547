"""lm-eval, which shares no code with `qualify`, finds the same accuracy on the same server and
tasks."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from oea_server_demo import MODEL

from oea_server.client.server import Server

pytestmark = [pytest.mark.nightly, pytest.mark.launch]

ROOT = Path(__file__).parents[2]
LM_EVAL = "lm-eval[api]==0.4.13"
NUMBER = 200
SAME = {"vanilla": 0.97, "k0=1": 0.8}
"""Task by task: under a rule an answer depends on those decoded with it, which are others in each
harness."""


@pytest.fixture(scope="module")
def lm_eval(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In an environment of its own, from the package index unless the checkout has one."""
    kept = ROOT / ".venv-lm-eval" / "bin" / "lm_eval"
    if kept.exists():
        return kept
    folder = tmp_path_factory.mktemp("lm-eval")
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", LM_EVAL], check=True, timeout=900)
    return folder / "bin" / "lm_eval"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(
        "--model-path", str(MODEL), "--max-running-requests", "16", "--max-total-tokens", "65536"
    ) as started:
        yield started


def test_two_harnesses_agree_on_vanilla_and_on_one_expert(
    server: Server, lm_eval: Path, tmp_path: Path
) -> None:
    words = [
        "--url",
        server.url,
        "--number",
        str(NUMBER),
        "--lm-eval",
        str(lm_eval),
        "--out",
        str(tmp_path),
    ]
    script = str(ROOT / "benchmarks" / "harnesses.py")
    done = subprocess.run(
        [sys.executable, script, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    vanilla, one = json.loads((tmp_path / "harnesses-demo.json").read_text())["rows"]
    for row in (vanilla, one):
        assert row["agree"]
        assert row["same_task_by_task"] > SAME[row["arm"]]
        assert min(row["qualify_batch"], row["lm_eval_batch"]) > 2
    for harness in ("qualify", "lm_eval"):  # both see what one expert costs
        assert vanilla[harness] > one[harness]
    assert server.config()["settings"]["policy"] == "oea"
