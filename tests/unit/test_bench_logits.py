"""Logits to measure with: as many experts woken as the paper saw, or as chance says; or what was
recorded."""

from pathlib import Path

import numpy as np
import pytest
import torch

from oea_server.lab.bench import trace
from oea_server.lab.bench.logits import Uniform, correlated_like, mean_experts, shaped
from oea_server.lab.bench.paper import BATCH, QWEN3_30B, QWEN3_235B, VANILLA, Published
from oea_server.lab.records.options import OptionError
from oea_server.routing import Policy, route


@pytest.mark.parametrize("published", [QWEN3_30B, QWEN3_235B], ids=lambda each: each.model)
def test_correlated_logits_wake_as_many_experts_as_the_paper_saw(published: Published) -> None:
    source = correlated_like(published, 128)
    achieved = dict(source.achieved)
    for k0 in (published.anchor, VANILLA):  # what was fitted
        assert achieved[k0] == pytest.approx(published.experts[k0], rel=0.02)
    for k0, experts in published.experts.items():  # what was not
        assert achieved[k0] == pytest.approx(experts, rel=0.04)
    assert correlated_like(published, 128) == source


def test_what_is_reported_is_what_routing_loads() -> None:
    source = correlated_like(QWEN3_30B, 128)
    logits = source.draw(300, BATCH, 128, torch.Generator().manual_seed(5))
    for policy, k0 in ((Policy.vanilla(), VANILLA), (Policy.oea(3), 3)):
        loaded = sum(int(route(step.bfloat16(), policy, k=8).pool.sum()) for step in logits) / len(
            logits
        )
        assert loaded == pytest.approx(mean_experts(logits, k0), rel=0.005)
        assert loaded == pytest.approx(QWEN3_30B.experts[k0], rel=0.03)


def test_uniform_logits_follow_the_formula() -> None:
    logits = Uniform().draw(400, 16, 128, torch.Generator().manual_seed(0))
    assert mean_experts(logits, 8) == pytest.approx(128 * (1 - (1 - 8 / 128) ** 16), rel=0.01)


@pytest.mark.parametrize("skew", [-2.0, -0.3, 0.0, 0.4, 1.0])
def test_the_shape_keeps_order_and_variance(skew: float) -> None:
    z = torch.randn(200_000, generator=torch.Generator().manual_seed(0)).sort().values
    bent = shaped(z, skew)
    assert bool((bent.diff() >= 0).all())
    assert float(bent.square().mean()) == pytest.approx(1.0, rel=0.05)


def test_a_trace_gives_rows_of_one_step_at_a_time(tmp_path: Path) -> None:
    steps, tokens, experts = 5, 12, 32
    recorded = np.arange(steps * tokens, dtype=np.float32)[:, None].repeat(experts, axis=1)
    np.save(tmp_path / "t.npy", recorded.reshape(steps, tokens, experts))
    source = trace.read(tmp_path / "t.npy")
    drawn = source.draw(20, 7, experts, torch.Generator().manual_seed(0))
    assert drawn.shape == (20, 7, experts)
    rows = drawn[:, :, 0]
    assert all(len(set(step.tolist())) == 7 for step in rows)  # without replacement
    assert bool((rows // tokens == rows[:, :1] // tokens).all())
    assert torch.equal(drawn, source.draw(20, 7, experts, torch.Generator().manual_seed(0)))


def test_a_trace_with_gaps_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.full((2, 4, 16), np.nan, np.float32))
    with pytest.raises(OptionError, match="logits that are not finite"):
        trace.read(tmp_path / "t.npy").draw(1, 2, 16, torch.Generator())
