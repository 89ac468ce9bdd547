"""Tiny models of well-known families, decoded by SGLang's own model runner on a CPU
(`tests.engine.run_families`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.apart import CLEAN
from tests.engine.checkpoints import FAMILIES
from tests.engine.patched import IS_PATCHED
from tests.engine.run_families import ALONE, STEPS, TOGETHER, Run
from tests.engine.tiny_checkpoints import EXPERTS, K0, NOT_ON_TWO_RANKS, K
from tests.transcript import REPLAY

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(
        IS_PATCHED or not REPLAY, reason="run once, where SGLang keeps routing replays"
    ),
]
ON_TWO_RANKS = tuple(name for name in FAMILIES if name not in NOT_ON_TWO_RANKS)


class Runs:
    """What the children left, of each family asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, name: str, kind: str) -> list[Run]:
        path = self.folder / f"{name}-{kind}.pt"
        if not path.exists():
            pytest.fail(f"{name} left nothing; {path.with_suffix('.log').read_text()[-2000:]}")
        found: Any = torch.load(path)
        assert not isinstance(found, str), (
            f"{found}: {path.with_suffix('.log').read_text()[-2000:]}"
        )
        return [Run(*each) for each in found]


def run(
    folder: Path, ranks: int, request: pytest.FixtureRequest, families: tuple[str, ...]
) -> Runs:
    """Those families alone whose tests were asked for."""
    asked = {
        item.callspec.params.get("name")
        for item in request.session.items
        if hasattr(item, "callspec")
    }
    names = [name for name in families if name in asked]
    command = [sys.executable, "-m", "tests.engine.run_families", str(folder), str(ranks), *names]
    subprocess.run(command, env={**CLEAN, "OMP_NUM_THREADS": "1"}, timeout=3600, check=True)
    return Runs(folder)


@pytest.fixture(scope="module")
def one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return run(tmp_path_factory.mktemp("one"), 1, request, tuple(FAMILIES))


@pytest.fixture(scope="module")
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return run(tmp_path_factory.mktemp("two"), 2, request, ON_TWO_RANKS)


@pytest.mark.parametrize("name", FAMILIES)
def test_vanilla_is_sglang_without_us(one: Runs, name: str) -> None:
    """To the bit: all logits of prompts that decode alone and together, and the experts of each
    token."""
    theirs, vanilla = one.of(name, "plain"), one.of(name, "ours")[len(ALONE) + 1 :]
    for ours, plain in zip(vanilla, theirs, strict=True):
        assert torch.equal(ours.logits, plain.logits)
        assert torch.equal(ours.experts, plain.experts)
        assert len(plain.experts.unique()) > K
    assert theirs[-1].gained == {}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_lone_token_is_routed_as_without_us(one: Runs, name: str) -> None:
    for ours, plain in zip(
        one.of(name, "ours")[: len(ALONE)], one.of(name, "plain")[: len(ALONE)], strict=True
    ):
        assert torch.equal(ours.logits, plain.logits)
        assert ours.gained["unique"] == ours.gained["vanilla"] == sum(map(len, read(ours)))


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_counted_is_a_recount(one: Runs, name: str) -> None:
    oea, vanilla = one.of(name, "ours")[len(ALONE)], one.of(name, "ours")[-1]
    layers, taken = read(oea), sum(map(len, tokens(oea)))
    rows = len(TOGETHER) * STEPS * oea.experts.shape[2]
    unique = sum(map(len, layers))
    assert oea.gained["layers"] == len(layers) == STEPS * oea.experts.shape[2]
    assert oea.gained["unique"] == unique < oea.gained["vanilla"]
    assert oea.gained["tokens"] == rows
    assert oea.gained["assignments"] == taken
    assert oea.gained["piggybacked"] == taken - K0 * rows > 0
    assert oea.gained["bytes"] == unique * FAMILIES[name].expert_bytes
    assert vanilla.gained["unique"] == vanilla.gained["vanilla"] == sum(map(len, read(vanilla)))
    assert {len(token) for token in tokens(vanilla)} == {K}


@pytest.mark.parametrize("name", ON_TWO_RANKS)
def test_two_ranks_agree_with_one(one: Runs, two: Runs, name: str) -> None:
    (first,), (second,) = two.of(name, "rank0"), two.of(name, "rank1")
    alone = one.of(name, "ours")[len(ALONE)]
    assert torch.equal(first.experts, second.experts)
    assert torch.equal(first.experts.sort().values, alone.experts.sort().values)
    torch.testing.assert_close(first.logits, alone.logits, atol=1e-3, rtol=1e-3)
    half = EXPERTS // 2
    busiest = sum(
        max(sum(each // half == rank for each in ids) for rank in (0, 1)) for ids in read(first)
    )
    assert first.gained["busiest"] == busiest
    assert first.gained["unique"] == sum(map(len, read(first))) < first.gained["vanilla"]


def read(run: Run) -> list[set[int]]:
    """The experts with weights of each layer in each step: those behind them compute nothing."""
    steps, rows, layers, k = run.experts.shape
    ids = run.experts.transpose(1, 2).reshape(steps * layers, rows * k).tolist()
    return [{expert for expert in each if expert < EXPERTS} for each in ids]


def tokens(run: Run) -> list[set[int]]:
    """The experts of each token in each layer and step."""
    return [set(each) for each in run.experts.reshape(-1, run.experts.shape[-1]).tolist()]
