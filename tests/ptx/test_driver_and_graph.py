"""The fake driver and the fake graph with small kernels of their own."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from tests.ptx.driver import Driver, fake_cuda
from tests.ptx.graph import FakeGraph, fake_capture
from tests.ptx.parse import PtxError


@triton.jit  # type: ignore[untyped-decorator]
def scale(x_ptr, y_ptr, n, factor, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    tl.store(y_ptr + at, x * factor, mask=at < n)


@triton.jit  # type: ignore[untyped-decorator]
def histogram(x_ptr, out_ptr, BLOCK: tl.constexpr, BINS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    counts = tl.histogram(tl.load(x_ptr + tl.arange(0, BLOCK)), BINS)
    bins = tl.arange(0, BINS)
    order = tl.cumsum(counts, axis=0)
    tl.atomic_add(out_ptr + bins, counts, sem="relaxed")
    tl.store(out_ptr + BINS + bins, order)


def launch(x: torch.Tensor, y: torch.Tensor, factor: float = 2.5) -> None:
    scale[(triton.cdiv(len(x), 128),)](x, y, len(x), factor, BLOCK=128)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("seed", [None, 3])
def test_triton_s_own_kernels(capability: int, seed: int | None) -> None:
    """Masks, a float argument, a cumulative sum, and a histogram by shared atomics."""
    with fake_cuda(capability) as driver:
        driver.seed = seed
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            x = torch.randn(300).to(dtype)
            y = torch.full((400,), 7.0)
            launch(x, y)
            torch.testing.assert_close(y[:300], x.float() * 2.5)
            assert (y[300:] == 7).all()
        drawn = torch.randint(0, 64, (512,), dtype=torch.int32)
        out = torch.zeros(128, dtype=torch.int32)
        histogram[(1,)](drawn, out, BLOCK=512, BINS=64)
        assert torch.equal(out[:64], drawn.bincount(minlength=64).int())
        assert torch.equal(out[64:], out[:64].cumsum(0).int())
    assert f".target sm_{capability}" in driver.launches[0].compiled.ptx


def test_launches_are_recorded_by_variant(driver: Driver) -> None:
    x = torch.zeros(512)
    launch(x, torch.zeros(512))
    launch(x, torch.zeros(512))
    launch(x[1:500], torch.zeros(512))  # neither aligned nor of a size that 16 divides
    hashes = [made.compiled.hash for made in driver.launches]
    assert hashes[0] == hashes[1] != hashes[2]
    assert driver.launches[2].grid == (4, 1, 1)


def test_a_graph_replays_launches_and_operators_on_the_same_memory(driver: Driver) -> None:
    x, y, total, graph = torch.ones(256), torch.zeros(256), torch.zeros(()), FakeGraph()
    with fake_capture(driver, graph):
        doubled = x * 2
        launch(doubled, y)
        total.add_(y.sum())
        shown = y[:2] + 1
    assert not y.any()  # nothing ran
    assert not total
    for value in (1.0, 3.0):
        x.fill_(value)
        graph.replay()
        assert (y == value * 5).all()
        assert shown.tolist() == [value * 5 + 1] * 2
    assert float(total) == 256 * 20


def test_a_graph_keeps_what_it_made_and_nothing_else(driver: Driver) -> None:
    x, y, graph = torch.ones(256), torch.zeros(256), FakeGraph()
    with fake_capture(driver, graph):
        launch(torch.ones_like(x), y)
    graph.replay()
    assert (y == 2.5).all()
    outside, graph = torch.ones(256), FakeGraph()
    with fake_capture(driver, graph):
        launch(outside, y)
    graph.replay()
    del outside
    driver.launches.clear()
    with pytest.raises(PtxError, match="x_ptr, whose memory has been freed"):
        graph.replay()


def test_reading_a_value_on_the_host_ends_a_capture(driver: Driver) -> None:
    with (
        pytest.raises(RuntimeError, match="waits for the device"),
        fake_capture(driver, FakeGraph()),
    ):
        int(torch.ones(()))
    assert driver.recorder is None
