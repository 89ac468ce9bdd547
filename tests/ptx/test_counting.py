"""The kernel that counts SGLang's own top k, as PTX: shared atomics, in any order of warps."""

from __future__ import annotations

import pytest
import torch

from oea_server.routing.device_tally import DeviceTally
from oea_server.routing.tally import HostTally
from tests.ptx.driver import Driver

CPU = torch.device("cpu")


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize(("num_experts", "k", "ranks"), [(128, 8, 8), (60, 4, 1)])
def test_counts_as_the_host_does(driver: Driver, num_experts: int, k: int, ranks: int, seed: int | None) -> None:
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
