"""Memory of which everyone has a piece: blocks of shared memory, threads of local memory.

It begins as 0xA5, so that what nobody wrote is not a zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tests.ptx.parse import PtxError
from tests.ptx.values import Array

ALIGNMENT = 16
GARBAGE = 0xA5


class Scratch:
    """`size` bytes for each of `owners`; `name` is what errors call it."""

    def __init__(self, name: str, owners: int, size: int) -> None:
        self.name = name
        self.size = size
        self.pitch = -(-size // ALIGNMENT) * ALIGNMENT
        self.data = np.full(owners * self.pitch, GARBAGE, np.uint8)

    def index(self, owner: Array, addresses: Array, dtype: np.dtype[Any], count: int) -> Array:
        """Where `count` neighbours begin for each owner, in elements.

        Raises:
            PtxError: an address lies outside, or is not a multiple of what is read.
        """
        size = dtype.itemsize * count
        addresses = addresses.astype(np.int64)
        if (addresses % size).any():
            bad = int(addresses[addresses % size != 0][0])
            raise PtxError(f"misaligned: {size} bytes at {bad:#x} of {self.name} memory")
        outside = (addresses < 0) | (addresses + size > self.size)
        if outside.any():
            bad = int(addresses[outside][0])
            raise PtxError(
                f"out of bounds: {size} bytes at {bad:#x} of {self.size} bytes of {self.name}"
                " memory"
            )
        return (owner * self.pitch + addresses) // dtype.itemsize


class Pieces(NamedTuple):
    """Some owners' pieces, to be addressed one by one. Raises as `Scratch.index` does."""

    scratch: Scratch
    owner: Array

    def load(self, addresses: Array, dtype: np.dtype[Any], count: int) -> list[Array]:
        """`count` neighbours from each address."""
        view, index = (
            self.scratch.data.view(dtype),
            self.scratch.index(self.owner, addresses, dtype, count),
        )
        return [view[index + i] for i in range(count)]

    def store(self, addresses: Array, values: list[Array]) -> None:
        """Neighbours to each address."""
        dtype = values[0].dtype
        view, index = (
            self.scratch.data.view(dtype),
            self.scratch.index(self.owner, addresses, dtype, len(values)),
        )
        for i, value in enumerate(values):
            view[index + i] = value

    def cells(self, addresses: Array, dtype: np.dtype[Any]) -> list[tuple[Array, int]]:
        """For atomics: (array, index) of each address, in order."""
        view = self.scratch.data.view(dtype)
        return [(view, int(at)) for at in self.scratch.index(self.owner, addresses, dtype, 1)]
