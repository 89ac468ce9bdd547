"""Kernel, loop and vectorised form agree on what is drawn at random, with the kernel on a GPU: not
yet run on one."""

from __future__ import annotations

import pytest
import torch

from tests.ptx.agreement import agree

DRAWS = 40
"""Of a kernel each, which takes seconds to compile."""


@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="no GPU: tests/ptx runs such draws in an interpreter of PTX",
)
def test_all_three_agree() -> None:
    for seed in range(DRAWS):
        agree(seed, torch.device("cuda"))
