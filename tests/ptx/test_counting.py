"""The kernel that counts SGLang's own top k, as PTX: shared atomics, in any order of warps."""

from __future__ import annotations

import pytest
import torch

from oea_server.routing import Policy, Router, fused
from oea_server.routing.counting import count_kept
from oea_server.routing.device_tally import DeviceTally
from oea_server.routing.knobs import Knobs
from oea_server.routing.tally import HostTally
from tests.ptx.driver import Driver

CPU = torch.device("cpu")


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize(("num_experts", "k", "ranks"), [(128, 8, 8), (60, 4, 1)])
def test_counts_as_the_host_does(
    driver: Driver, num_experts: int, k: int, ranks: int, seed: int | None
) -> None:
    driver.seed = seed
    ours, theirs = (
        DeviceTally([0, 5], num_experts, ranks, CPU),
        HostTally([0, 5], num_experts, ranks),
    )
    for batch, real in (
        (1, 1),
        (7, 5),
        (16, 0),
        (128, 128),
    ):  # 128 rows are more ids than are read at once
        drawn = torch.rand(batch, num_experts, generator=torch.Generator().manual_seed(batch))
        ids = drawn.topk(k).indices.int()
        ids[0, 0] = -1  # loads nothing
        for layer in (0, 5):
            ours.add_vanilla(layer, ids, torch.tensor(real, dtype=torch.int32))
            theirs.add_vanilla(layer, ids, real)
    assert torch.equal(ours.data, theirs.data)
    assert len({made.compiled.hash for made in driver.launches}) == 1


@pytest.mark.parametrize("seed", [None, 1])
def test_rows_that_were_accepted_are_counted_and_what_only_the_others_woke(
    driver: Driver, seed: int | None
) -> None:
    """Of two layers, the second of which SGLang's own top k routed in that step."""
    driver.seed = seed
    experts, width = 64, 5
    rows = 4 * width
    knobs = Knobs({0: 4, 5: 4}, experts, CPU)
    knobs.write(Policy.oea(2))
    tally = DeviceTally([0, 5], experts, 1, CPU)
    tally.by_step = True
    logits = torch.randn(rows, experts, generator=torch.Generator().manual_seed(3))
    drafts = torch.arange(rows) % width
    real = torch.tensor(rows, dtype=torch.int32)
    fused.route(logits, knobs, Router(4), drafts=drafts, num_real=real, layer=0, tally=tally)
    tally.add_vanilla(5, logits.topk(4).indices.int(), real)
    accepted = torch.tensor([[0, 1, 2], [5, -1, -1], [10, 12, -1], [15, 16, 17]], dtype=torch.int32)
    floors = logits.topk(2).indices
    served = set(floors[accepted[accepted >= 0].long()].flatten().tolist())
    others = set(floors.flatten().tolist()) - served
    assert others
    for times in (1, 2):  # what the step has left lies there until the next
        count_kept(tally, accepted)
        assert tally.verified.tolist() == [[9 * times, len(others) * times], [9 * times, 0]]
    tally.counting.fill_(0)
    count_kept(tally, accepted)
    for size in (1, 16, 33):  # as it is warmed up, and of any size
        count_kept(tally, torch.full((size, 1), -1, dtype=torch.int32))
    assert tally.verified.tolist() == [[18, 2 * len(others)], [18, 0]]
    kernels = {
        made.compiled.hash for made in driver.launches if made.compiled.name == "kept_kernel"
    }
    assert len(kernels) == 1
