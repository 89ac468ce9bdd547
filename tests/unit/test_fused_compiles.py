"""The launches compile for the GPUs they are meant for, without one: Triton brings the assembler. One compiled kernel
serves all layers, batches and ranks, and waits for no memory."""

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
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize("case", ["layers", "map", "ranks", "ampere"])
def test_compiles_without_fences(case: str) -> None:
    """Counts order nothing: an atomic that did would wait for all memory, half a microsecond each in every layer."""
    for kernel in compiled()[case]["kernels"]:
        assert kernel["instructions"] > 0
        assert kernel["atomics"] >= 7
        assert kernel["fences"] == 0
        assert kernel["shared"] <= 8192  # bytes, of 48 Ki; it stays in registers


@pytest.mark.parametrize(("case", "kernels"), [("layers", 2), ("map", 3)])
def test_one_kernel_for_all_layers_batches_and_ranks(case: str, kernels: int) -> None:
    """Whether a rank counts or not, and wherever in memory a layer's numbers lie."""
    said = compiled()[case]
    assert said["warm"] == len(said["kernels"]) == kernels
    assert set(said["launched"]) == set(range(kernels))  # nothing is compiled once there is traffic
