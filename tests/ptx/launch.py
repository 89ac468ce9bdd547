"""One launch of a compiled kernel: what it was called with, and how to run it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from tests.ptx.global_memory import GlobalMemory, Region
from tests.ptx.machine import Machine
from tests.ptx.parse import PtxError
from tests.ptx.program import Program
from tests.ptx.registers import Grid

FORMATS = {"fp16": np.float16, "fp32": np.float32, "fp64": np.float64}


class Compiled(NamedTuple):
    """What Triton compiled for one set of types and constants."""

    name: str
    hash: str
    """Another for every variant."""
    ptx: str
    cubin: bytes
    program: Program
    threads: int
    """Of a block."""
    shared_bytes: int


class Pointer(NamedTuple):
    """A tensor that a launch was given: its place, not its life. As a GPU does, a launch keeps
    nothing alive."""

    name: str
    region: Region
    storage: StorageWeakRef


def pointer_to(name: str, tensor: torch.Tensor) -> Pointer:
    """The memory from a tensor's first element to its last, gaps between rows included."""
    steps = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    size = 0 if tensor.numel() == 0 else (steps + 1) * tensor.element_size()
    return Pointer(name, Region(tensor.data_ptr(), size), StorageWeakRef(tensor.untyped_storage()))


class Launch(NamedTuple):
    """A launch that can be run, once or again and again."""

    compiled: Compiled
    grid: Grid
    pointers: list[Pointer]
    arguments: list[int]
    """The bits of each parameter."""

    def run(self, seed: int | None = None) -> Machine:
        """Run it on the tensors' memory; returns what ran it, and counted. See `Machine`.

        Raises:
            PtxError: also where a tensor has been freed since.
        """
        for pointer in self.pointers:
            if pointer.storage.expired():
                raise PtxError(
                    f"{self.compiled.name} reads {pointer.name}, whose memory has been freed"
                )
        compiled = self.compiled
        machine = Machine(
            compiled.program,
            self.grid,
            compiled.threads,
            self.arguments,
            GlobalMemory(pointer.region for pointer in self.pointers),
            compiled.shared_bytes,
            seed,
        )
        machine.run()
        return machine


def launch_of(
    compiled: Compiled, grid: Grid, signature: dict[str, str], values: Sequence[Any]
) -> Launch:
    """A launch with a kernel's own arguments.

    Args:
        signature: argument -> Triton's type of it; `constexpr` is compiled in.
        values: of all arguments.

    Raises:
        PtxError: an argument that the interpreter cannot hand over (descriptors, tuples).
    """
    pointers, arguments = [], []
    for (name, kind), value in zip(signature.items(), values, strict=True):
        if kind == "constexpr":
            continue
        if isinstance(value, torch.Tensor):
            pointer = pointer_to(name, value)
            pointers.append(pointer)
            arguments.append(pointer.region.address)
        elif kind in FORMATS:
            arguments.append(
                int(np.array(value, FORMATS[kind]).view(f"u{np.dtype(FORMATS[kind]).itemsize}"))
            )
        elif isinstance(value, int):
            arguments.append(int(value) % (1 << 64))
        else:
            raise PtxError(f"argument {name} of {compiled.name} has the unknown type {kind}")
    # Triton's scratch, which the driver refuses
    missing = len(compiled.program.kernel.parameters) - len(arguments)
    return Launch(compiled, grid, pointers, arguments + [0] * missing)
