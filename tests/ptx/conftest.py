"""A driver without a GPU, for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ptx.compiling import assert_compiling
from tests.ptx.driver import Driver, fake_cuda


@pytest.fixture
def driver() -> Iterator[Driver]:
    """Compiles for sm_90 and interprets."""
    assert_compiling()
    with fake_cuda() as made:
        yield made
