"""These tests compile kernels for a GPU; Triton's interpreter would run them as Python instead."""

from __future__ import annotations

from oea_server.routing import kernel


def assert_compiling() -> None:
    """Raise RuntimeError where kernels were imported under TRITON_INTERPRET: that cannot be taken
    back."""
    if type(kernel.route_kernel).__name__ != "JITFunction":
        raise RuntimeError(
            "TRITON_INTERPRET is set, or was when the kernels were imported: "
            "run tests/ptx and tests/gpu in a process of their own, without tests/unit"
        )
