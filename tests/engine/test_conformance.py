"""One suite for both ways into SGLang: hooks from outside, and our patches inside. Same outputs,
same counts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.patched import patched_copy
from tests.servers import PATCHED, Servers
from tests.transcript import REPLAY


def both(kind: str, *more: pytest.MarkDecorator) -> Any:
    """A kind of server, hooked and patched."""
    return pytest.param(kind, marks=[pytest.mark.server(kind, PATCHED + kind), *more], id=kind)


VANILLA, ONE_RANK, TWO_RANKS = both("vanilla"), both("k3"), both("k3-ep2", pytest.mark.nightly)
ROUTED = [ONE_RANK, TWO_RANKS] if REPLAY else [ONE_RANK]
KINDS = [VANILLA, *ROUTED]
COUNTS = (
    *(
        "oea_unique_experts",
        "oea_vanilla_unique_experts",
        "oea_max_rank_unique_experts",
        "oea_decode_batch_size",
    ),
    *(
        "oea_routed_tokens",
        "oea_assignments",
        "oea_piggybacked",
        "oea_kept_router_mass",
        "oea_expert_bytes",
    ),
)


def counts(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith(COUNTS)}


def same(metrics: dict[str, float]) -> Any:
    """To the unit, up to a hundred million; router mass, which is a sum of rounded numbers, to as
    many digits."""
    return pytest.approx(metrics, rel=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_are_the_same_to_the_bit(servers: Servers, kind: str) -> None:
    hooked, patched = servers.transcript(kind), servers.transcript(PATCHED + kind)
    assert len(hooked.generations) == len(patched.generations) > 1
    for theirs, ours in zip(hooked.generations, patched.generations, strict=True):
        assert ours.ids == theirs.ids
        assert ours.logprobs == theirs.logprobs
        assert ours.prompt_logprobs == theirs.prompt_logprobs
        assert np.array_equal(ours.experts, theirs.experts)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_counted_is_the_same(servers: Servers, kind: str) -> None:
    hooked, patched = servers.transcript(kind), servers.transcript(PATCHED + kind)
    assert counts(hooked.after) == same(counts(patched.after)) != {}
    assert hooked.families == patched.families


@pytest.mark.skipif(not REPLAY, reason="SGLang 0.5.17 cannot keep routing replays without a GPU")
@pytest.mark.parametrize("kind", ROUTED)
def test_prompts_that_decode_together_wake_the_same_experts(servers: Servers, kind: str) -> None:
    hooked, patched = servers.undisturbed(kind), servers.undisturbed(PATCHED + kind)
    assert np.array_equal(hooked.experts, patched.experts)
    assert counts(hooked.gained) == same(counts(patched.gained)) != {}
    assert hooked.bypassed == patched.bypassed


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_says_which_way_it_goes(servers: Servers, kind: str) -> None:
    for which, seams in ((kind, "hooks"), (PATCHED + kind, "patched")):
        text = servers.transcript(which).text
        assert re.findall(r"^oea_build_info\{.*seams=\"(\w+)\".*\} 1\.0$", text, re.MULTILINE) == [
            seams
        ]


def test_the_seams_hold_in_a_patched_sglang_too(tmp_path: Path) -> None:
    """`test_seams` without launches, the guard, and what only a patched SGLang has, in a process
    that imports it."""
    folder = Path(__file__).parent
    files = [
        str(folder / name)
        for name in ("test_seams.py", "test_rules.py", "test_guard.py", "test_patched.py")
    ]
    environment = {**os.environ, "PYTHONPATH": str(patched_copy(tmp_path))}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-m",
            "not launch",
            *files,
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        cwd=folder.parents[1],
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout.splitlines()[-1]


def test_half_a_patch_is_refused(tmp_path: Path) -> None:
    folder = patched_copy(tmp_path)
    runner = folder / "sglang/srt/model_executor/model_runner.py"
    runner.write_text(
        runner.read_text().replace(
            "from sglang.srt.layers.moe.batch_routing import routed_pass\n", ""
        )
    )
    script = "from sglang.srt.plugins import load_plugins\nload_plugins()\nprint('served on')\n"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 2
    assert (
        "half patched (sglang.srt.model_executor.model_runner); run: oea-server patch apply"
        in done.stderr
    )
    assert "served on" not in done.stdout
