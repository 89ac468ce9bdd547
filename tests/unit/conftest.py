"""Without a GPU, Triton kernels run in Triton's interpreter; that is decided when they are
imported."""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs the launch in Triton's interpreter: `make check` leaves it out."""
    from oea_server.routing import fused

    for item in items:
        called = getattr(item, "callspec", None)
        if "fused" in item.name or (called is not None and fused.route in called.params.values()):
            item.add_marker("interpreter")
