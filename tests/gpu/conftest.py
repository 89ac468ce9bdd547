"""The graphs' device, said in the report."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.gpu.device import Device, device
from tests.ptx.compiling import assert_compiling


def pytest_report_header() -> str:
    return "tests/gpu: on " + (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else "the PTX interpreter, for sm_90: no GPU here"
    )


@pytest.fixture
def gpu() -> Iterator[Device]:
    """A GPU or its stand-in."""
    assert_compiling()
    with device() as found:
        yield found
