"""The launches compile for the GPUs they are meant for, without one: Triton brings the assembler.
One compiled kernel serves all layers, batches and ranks, and waits for no memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@cache
def compiled() -> dict[str, Any]:
    """What `tests.unit.compiled_launches` says, in a process without Triton's interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.unit.compiled_launches"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize("case", ["layers", "map", "ranks", "ampere"])
def test_compiles_without_fences(case: str) -> None:
    """Counts order nothing: an atomic that did would wait for all memory, half a microsecond each.
    And a layer's own launches have none at all."""
    for kernel in compiled()[case]["kernels"]:
        assert kernel["instructions"] > 0
        assert (kernel["atomics"] >= 7) == (kernel["name"] in ("step_kernel", "count_kernel"))
        assert kernel["fences"] == 0
        # bytes, of 99 Ki: votes of all rows meet there; the rest stays in registers
        assert kernel["shared"] <= 65536


@pytest.mark.parametrize(("case", "kernels"), [("layers", 6), ("map", 8)])
def test_one_kernel_for_all_layers_and_ranks(case: str, kernels: int) -> None:
    """Wherever in memory a layer's numbers lie; and for all batches that are cut into programs
    alike."""
    said = compiled()[case]
    assert len(said["kernels"]) == kernels
    warm, traffic = said["launched"][: said["warm"]], said["launched"][said["warm"] :]
    assert set(traffic) <= set(warm)  # nothing is compiled once there is traffic
