"""The kernel that works out ancestors, as PTX, beside the same on the host."""

from __future__ import annotations

import random

import pytest
import torch

from oea_server.routing import tree_kernel, trees
from tests.ptx.driver import Driver
from tests.unit.test_trees import drawn, links


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("n", [2, 5, 8, 70])
def test_ancestors_are_the_hosts(driver: Driver, n: int, seed: int | None) -> None:
    driver.seed = seed
    dice = random.Random(n)
    for batch in (1, 3):
        requests = [drawn(dice, n) for _ in range(batch)]
        child, sibling = (torch.tensor(each) for each in zip(*map(links, requests), strict=True))
        ours, theirs = (torch.full((3 * n + 1,), 7) for _ in range(2))
        tree_kernel.launch(child, sibling, ours)
        trees.write(child, sibling, theirs)
        assert torch.equal(ours, theirs)
    assert len({made.compiled.hash for made in driver.launches}) == 1
