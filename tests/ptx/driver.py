"""A CUDA driver for Triton without a GPU: its JIT compiles for one, and launches go to the
interpreter.

CPU tensors stand for device tensors. What Triton asks a device for (target, properties, stream) is
answered here; what it compiles is what a GPU of that capability would run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import GPUDriver
from triton.runtime.cache import get_cache_manager

from tests.ptx.lanes import WARP
from tests.ptx.launch import Compiled, Launch, launch_of
from tests.ptx.parse import PtxError, parse
from tests.ptx.program import Program, program_of

SHARED_BYTES = 227 * 1024
"""What a block can have on sm_90."""


class Driver(GPUDriver):  # type: ignore[misc]
    """Compiles for sm_`capability`, and runs each launch at once unless `recorder` takes it.

    Each capability is a device of its own, so that Triton keeps their kernels apart.
    """

    def __init__(self, capability: int = 90) -> None:
        self.capability = capability
        self.launches: list[Launch] = []
        """All of them, run or recorded."""
        self.recorder: list[Launch] | None = None
        """Where launches go while a graph is captured; they are not run then."""
        self.seed: int | None = None
        """See `Machine`."""
        self.utils = Utilities()
        self.launcher_cls = self._launcher
        self.get_device_capability = lambda device: divmod(capability, 10)
        self.get_current_stream = lambda device: 0
        self.get_current_device = lambda: capability
        self.set_current_device = lambda device: None

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, WARP)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_benchmarker(self) -> Any:
        raise NotImplementedError("nothing is timed without a GPU")

    @staticmethod
    def is_active() -> bool:
        return True

    def _launcher(self, source: Any, metadata: Any) -> Any:
        compiled = compiled_of(source.name, metadata)
        signature = dict(source.signature)

        def launch(
            x: int,
            y: int,
            z: int,
            stream: int,
            function: Any,
            packed: Any,
            about: Any,
            enter: Any,
            leave: Any,
            *values: Any,
        ) -> None:
            made = launch_of(compiled, (x, y, z), signature, values)
            # Triton keeps a kernel's launcher longer than a test its driver
            now = triton.runtime.driver.active
            now.launches.append(made)
            if enter is not None:
                enter(about)
            if now.recorder is None:
                made.run(now.seed)
            else:
                now.recorder.append(made)
            if leave is not None:
                leave(about)

        return launch


class Utilities:
    """What Triton asks the C part of its driver for."""

    def load_binary(
        self, name: str, kernel: bytes, shared: int, device: int
    ) -> tuple[int, int, int, int, int]:
        """(module, function, registers, spills, most threads)."""
        return 1, 1, 0, 0, 1024

    def unload_module(self, module: int) -> None:
        pass

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED_BYTES, "multiprocessor_count": 132, "warpSize": WARP}


def compiled_of(name: str, metadata: Any) -> Compiled:
    """What Triton has just compiled, from its cache on disk.

    Raises:
        PtxError: it needs what the interpreter has not: scratch memory, clusters, cooperative
        launches.
    """
    for unsupported in ("global_scratch_size", "profile_scratch_size", "launch_cooperative_grid"):
        if getattr(metadata, unsupported, 0):
            raise PtxError(f"{name}: {unsupported}={getattr(metadata, unsupported)}")
    if getattr(metadata, "num_ctas", 1) != 1:
        raise PtxError(f"{name}: num_ctas={metadata.num_ctas}")
    group = get_cache_manager(metadata.hash).get_group(f"{name}.json"[:150]) or {}
    files = {Path(path).suffix: Path(path) for path in group.values()}
    if ".ptx" not in files:
        raise PtxError(f"{name}: no PTX in Triton's cache")
    ptx = files[".ptx"].read_text()
    threads = metadata.num_warps * WARP
    return Compiled(
        name,
        metadata.hash,
        ptx,
        files[".cubin"].read_bytes(),
        decoded(ptx),
        threads,
        int(metadata.shared),
    )


@lru_cache(maxsize=64)
def decoded(ptx: str) -> Program:
    """The program of a PTX text."""
    return program_of(parse(ptx))


@contextmanager
def fake_cuda(capability: int = 90) -> Iterator[Driver]:
    """Triton's driver while the context lasts. `TRITON_INTERPRET` must not be set when kernels are
    imported."""
    driver, before = Driver(capability), triton.runtime.driver._active
    triton.runtime.driver.set_active(driver)
    try:
        yield driver
    finally:
        triton.runtime.driver._active = before
