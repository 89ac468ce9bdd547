"""A server of which a test decides what it answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.qualify.stub import Answering


@pytest.fixture
def stub() -> Iterator[Answering]:
    started = Answering()
    yield started
    started.stop()
