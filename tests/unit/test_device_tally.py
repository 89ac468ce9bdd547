"""What a GPU counts in one launch is what torch's operators count, to the last one. The launch runs
natively on a GPU, else in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from oea_server.routing import Policy, Router, device_tally, fused
from oea_server.routing.device_tally import DeviceTally
from oea_server.routing.knobs import Knobs
from oea_server.routing.placement import contiguous
from oea_server.routing.tally import Tally, tally_on

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("num_experts", "k", "batch", "ranks"),
    [
        (128, 8, 16, 1),
        (128, 8, 70, 8),  # more ids than are read at once
        (60, 4, 7, 3),
        (96, 6, 9, 96),
        (1024, 32, 1024, 64),
        (513, 10, 33, 1),
        (1, 1, 3, 1),
        (8, 2, 0, 2),
    ],
)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=["int32", "int64"])
def test_counts_as_torch_does(
    num_experts: int, k: int, batch: int, ranks: int, dtype: torch.dtype
) -> None:
    ours = DeviceTally([3, 7], num_experts, ranks, DEVICE)
    expected = Tally([3, 7], num_experts, ranks, CPU)
    ids = torch.randint(
        -1, num_experts, (batch, k), dtype=dtype, generator=torch.Generator().manual_seed(batch)
    )
    counts: list[int | torch.Tensor | None] = [
        None,
        batch // 2,
        torch.tensor(max(batch - 1, 0), dtype=torch.int32),
    ]
    if batch < 100:
        counts += [0, torch.tensor(0), batch + 9, torch.tensor(-1)]
    counts += [torch.arange(batch) % 3 == 1, torch.zeros(batch, dtype=torch.bool)]
    for real in counts:
        there = real.to(DEVICE) if isinstance(real, torch.Tensor) else real
        ours.add_vanilla(7, ids.to(DEVICE), there)
        expected.add_vanilla(7, ids, real)
        ours.add_loaded_ids(3, ids.to(DEVICE), there)
        expected.add_loaded_ids(3, ids, real)
    assert torch.equal(ours.data.cpu(), expected.data)
    assert ours.sums[1, 0] > 0 or batch == 0


def test_ids_need_not_be_packed() -> None:
    wide = torch.randint(0, 64, (9, 12), generator=torch.Generator().manual_seed(1))
    ours, expected = DeviceTally([0], 64, 4, DEVICE), Tally([0], 64, 4, CPU)
    for ids in (wide[:, :5], wide[::2], wide.t(), wide[:, ::3]):
        ours.add_vanilla(0, ids.to(DEVICE), None)
        expected.add_vanilla(0, ids, None)
    assert torch.equal(ours.data.cpu(), expected.data)


def test_steps_that_are_not_to_be_counted_are_not() -> None:
    tally = DeviceTally([0], 8, 2, DEVICE, placed=True)
    tally.counting.zero_()
    tally.add_vanilla(0, torch.tensor([[0, 5]], device=DEVICE), None)
    tally.add_loaded_ids(0, torch.tensor([[0, 5]], device=DEVICE), None)
    assert not tally.data.any()


def test_ids_beyond_the_experts_touch_no_memory() -> None:
    tally = DeviceTally([0, 1], 8, 1, DEVICE)
    tally.add_vanilla(0, torch.tensor([[0, 8], [99, -7], [1 << 30, 3]], device=DEVICE), None)
    assert tally.unique[0].nonzero().tolist() == [[2]]
    assert not tally.data[1].any()


def test_more_experts_than_a_program_holds_are_left_to_torch() -> None:
    ours, expected = DeviceTally([0], 1100, 2, DEVICE), Tally([0], 1100, 2, CPU)
    ids = torch.tensor([[0, 1099], [5, -1]])
    for each in (ours, expected):
        each.add_vanilla(0, ids.to(each.data.device), None)
        each.add_loaded_ids(0, ids.to(each.data.device), 1)
    assert torch.equal(ours.data.cpu(), expected.data)


def test_warming_up_counts_nothing() -> None:
    """What it compiles: `test_fused_compiles`."""
    tally, knobs = DeviceTally([5], 16, 2, DEVICE, placed=True), Knobs({5: 4}, 16, DEVICE)
    knobs.write(Policy.oea(2))
    place, numbers = contiguous(16, 2, DEVICE), knobs.table.clone()
    fused.warm_up(torch.bfloat16, knobs, Router(4), tally=tally, placement=place)
    fused.warm_up(
        torch.float32, knobs, Router(4, scoring="sigmoid"), num_real=torch.tensor(3, device=DEVICE)
    )
    fused.warm_up(
        torch.float32,
        knobs,
        Router(4),
        num_real=torch.ones(1, dtype=torch.bool, device=DEVICE),
        tally=tally,
    )
    assert not tally.data.any()
    assert torch.equal(knobs.table, numbers)


def test_a_gpu_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(device_tally, "DeviceTally", lambda *arguments: made.append(arguments))
    cuda = torch.device("cuda")
    tally_on(cuda, [0], 8, 2, True)
    assert made == [([0], 8, 2, cuda, True)]
