"""Each block's shared memory. It begins as 0xA5, so that what nobody wrote is not a zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ptx.parse import PtxError
from tests.ptx.values import Array

ALIGNMENT = 16
GARBAGE = 0xA5


class SharedMemory:
    """`size` bytes for each of `blocks` blocks."""

    def __init__(self, blocks: int, size: int) -> None:
        self.size = size
        self.pitch = max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)
        self.data = np.full(blocks * self.pitch, GARBAGE, np.uint8)

    def load(self, block: Array, addresses: Array, dtype: np.dtype[Any], count: int) -> list[Array]:
        """`count` neighbours from each address of each thread's own block.

        Raises:
            PtxError: an address lies outside, or is not a multiple of what is read.
        """
        view, index = self.data.view(dtype), self._index(block, addresses, dtype, count)
        return [view[index + i] for i in range(count)]

    def store(self, block: Array, addresses: Array, values: list[Array]) -> None:
        """Neighbours to each address. Raises as `load` does."""
        view, index = self.data.view(values[0].dtype), self._index(block, addresses, values[0].dtype, len(values))
        for i, value in enumerate(values):
            view[index + i] = value

    def cells(self, block: Array, addresses: Array, dtype: np.dtype[Any]) -> list[tuple[Array, int]]:
        """For atomics: (array, index) of each address, in order. Raises as `load` does."""
        view = self.data.view(dtype)
        return [(view, int(at)) for at in self._index(block, addresses, dtype, 1)]

    def _index(self, block: Array, addresses: Array, dtype: np.dtype[Any], count: int) -> Array:
        size = dtype.itemsize * count
        addresses = addresses.astype(np.int64)
        if (addresses % size).any():
            bad = int(addresses[addresses % size != 0][0])
            raise PtxError(f"misaligned: {size} bytes at {bad:#x} of shared memory")
        outside = (addresses < 0) | (addresses + size > self.size)
        if outside.any():
            bad = int(addresses[outside][0])
            raise PtxError(f"out of bounds: {size} bytes at {bad:#x} of {self.size} bytes of shared memory")
        return (block * self.pitch + addresses) // dtype.itemsize
