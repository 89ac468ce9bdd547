"""Kernel, loop and vectorised form agree on what is drawn at random: the kernel as PTX that is
compiled for sm_90."""

from __future__ import annotations

import pytest

from tests.ptx.agreement import agree
from tests.ptx.driver import Driver


@pytest.mark.parametrize("seed", range(16))
def test_all_three_agree(driver: Driver, seed: int) -> None:
    agree(seed)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(100, 400))
def test_all_three_agree_on_more(driver: Driver, seed: int) -> None:
    driver.seed = seed if seed % 4 == 0 else None
    agree(seed)
