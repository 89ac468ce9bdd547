"""The worked examples of CONTRIBUTING.md, `docs/examples/*.diff`, tried on copies."""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from oea_server.patching import series

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs/examples"
MOST_FILES = 5
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}

DRAWS = """
from dataclasses import replace
from functools import partial
import torch
from oea_server.routing import entry
from tests.ptx.agreement import agree, drawn, host
from tests.ptx.driver import fake_cuda

# interpreted, the loop is the same, and two draws are sooner through than numba
host.route = partial(host.route, by=entry.enter)

def answer(case):
    return host.route(case.logits, case.policy, case.router, **case.rest)

def matters(case):
    without = {without}
    ours, theirs = answer(case).weights, answer(without).weights
    return not torch.allclose(ours, theirs, equal_nan=True)

seeds = [seed for seed in range(300) if drawn(seed).logits.numel() < 4000]
seeds = [seed for seed in seeds if matters(drawn(seed))][:{draws}]
assert len(seeds) == {draws}
with fake_cuda():
    for seed in seeds:
        agree(seed)
"""
"""Draws that the example makes a difference to, on which kernel, loop and eager have to agree."""
BY_DRAWS = {
    "policy": "case._replace(policy=replace(case.policy, cut=0.0))",
    "scoring": "case._replace(router=replace(case.router, scoring='sqrtsoftplus'))"
    " if case.router.scoring == 'softplus' else case",
}
"""A draw as it would be without the example."""


def copy(folder: Path, *names: str) -> Path:
    """The package and its tests in `folder`, with these examples."""
    # the plug-in's entry points lead to the copy as well, for it comes first on the path
    kept_out = shutil.ignore_patterns("__pycache__", "models", "configs")
    for part in ("oea_server", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=kept_out)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in names:
        words = ["git", "apply", "-C1", str(EXAMPLES / f"{name}.diff")]
        subprocess.run(words, cwd=folder, check=True)
    return folder


def run(folder: Path, *words: str, **variables: str) -> None:
    environment = {**ENVIRONMENT, "PYTHONPATH": str(folder), **variables}
    command = [sys.executable, *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.diff")), ids=lambda path: path.stem)
def test_an_example_is_a_change_of_five_files_that_its_recipe_names(path: Path) -> None:
    changed = re.findall(r"^\+\+\+ b/(\S+)$", path.read_text(), re.MULTILINE)
    assert len(changed) <= MOST_FILES
    recipes = (ROOT / "CONTRIBUTING.md").read_text().split("\n## ")
    (recipe,) = [each for each in recipes if f"(docs/examples/{path.name})" in each]
    named = re.findall(r"`([\w/.]+\.py)`", recipe)
    missing = [file for file in changed if not any(file.endswith(each) for each in named)]
    assert missing == []


@pytest.mark.parametrize("name", BY_DRAWS)
def test_an_example_of_routing_agrees_with_itself(tmp_path: Path, name: str) -> None:
    folder = copy(tmp_path, name)
    script = DRAWS.format(without=BY_DRAWS[name], draws=2)
    run(folder, "-c", script, OMP_NUM_THREADS="1")


@pytest.mark.parametrize("name", ["seam", "mode"])
def test_an_example_of_the_engine_applies(tmp_path: Path, name: str) -> None:
    assert compileall.compile_dir(copy(tmp_path, name) / "oea_server/engine", quiet=1)


@pytest.mark.nightly  # half a minute of the CPU: a new copy of the package is compiled by numba
@pytest.mark.skipif(
    version("sglang") != series.versions()[-1], reason="written for the newest SGLang"
)
def test_examples_of_the_engine_pass_their_tests(tmp_path: Path) -> None:
    folder = copy(tmp_path, "seam", "mode")
    files = ["tests/engine/test_seams.py", "tests/engine/test_options.py"]
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    run(folder, *words, "-k", "new_weights or diffusion or table or spelling", OMP_NUM_THREADS="1")


@pytest.mark.nightly
@pytest.mark.parametrize("name", BY_DRAWS)
def test_an_example_of_routing_agrees_on_every_draw(tmp_path: Path, name: str) -> None:
    folder = copy(tmp_path, name)
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not nightly"]
    run(folder, *words, "tests/ptx/test_agreement.py", OMP_NUM_THREADS="1")
