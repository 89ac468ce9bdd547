"""Global memory is the tensors' own: a launch reads and writes their storage where it lies."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from tests.ptx.parse import PtxError
from tests.ptx.values import Array

ALIGNMENT = 16


class Region(NamedTuple):
    """What a launch was given: `size` bytes at `address`."""

    address: int
    size: int


class GlobalMemory:
    """The regions of one launch. Nothing else can be touched.

    Args:
        regions: addresses and sizes in bytes; they may overlap. They must live while this does.
    """

    def __init__(self, regions: Iterable[Region]) -> None:
        self.regions = sorted({region for region in regions if region.size})
        self._views: dict[tuple[Region, Any], Array] = {}

    def load(self, addresses: Array, dtype: np.dtype[Any], count: int) -> list[Array]:
        """`count` neighbours from each address: `count` arrays of the addresses' shape.

        Raises:
            PtxError: an address lies outside every region, or is not a multiple of what is read.
        """
        loaded = [np.empty(len(addresses), dtype) for _ in range(count)]
        for region, lanes in self._find(addresses, dtype.itemsize, count):
            view, index = self._view(region, dtype), self._index(region, addresses[lanes], dtype)
            for i in range(count):
                loaded[i][lanes] = view[index + i]
        return loaded

    def store(self, addresses: Array, values: list[Array]) -> None:
        """Neighbours to each address. Raises as `load` does."""
        dtype = values[0].dtype
        for region, lanes in self._find(addresses, dtype.itemsize, len(values)):
            view, index = self._view(region, dtype), self._index(region, addresses[lanes], dtype)
            for i, value in enumerate(values):
                view[index + i] = value[lanes]

    def cells(self, addresses: Array, dtype: np.dtype[Any]) -> list[tuple[Array, int]]:
        """For atomics: (array, index) of each address, in order. Raises as `load` does."""
        found: list[tuple[Array, int]] = [(np.empty(0), 0)] * len(addresses)
        for region, lanes in self._find(addresses, dtype.itemsize, 1):
            view, index = self._view(region, dtype), self._index(region, addresses[lanes], dtype)
            for lane, at in zip(np.arange(len(addresses))[lanes], index, strict=True):
                found[lane] = view, int(at)
        return found

    def _find(self, addresses: Array, size: int, count: int) -> list[tuple[Region, Any]]:
        """The regions that hold the addresses, each with an index of its lanes."""
        if (addresses % np.uint64(size * count)).any():
            bad = int(addresses[addresses % np.uint64(size * count) != 0][0])
            raise PtxError(f"misaligned: {size * count} bytes at {bad:#x} of global memory")
        least, most = int(addresses.min()), int(addresses.max()) + size * count
        for region in self.regions:
            if region.address <= least and most <= region.address + region.size:
                return [(region, slice(None))]
        found, left = [], np.ones(len(addresses), bool)
        for region in self.regions:
            last = region.address + region.size - size * count
            here = left & (addresses >= region.address) & (addresses <= last) & (last >= 0)
            if here.any():
                found.append((region, here))
                left &= ~here
        if left.any():
            raise PtxError(
                f"out of bounds: {size * count} bytes at {int(addresses[left][0]):#x} of global"
                " memory"
            )
        return found

    @staticmethod
    def _base(region: Region) -> int:
        return region.address // ALIGNMENT * ALIGNMENT

    def _view(self, region: Region, dtype: np.dtype[Any]) -> Array:
        """The region in elements of a type, from the last aligned address at or before its
        begin."""
        view = self._views.get((region, dtype))
        if view is None:
            base = self._base(region)
            size = -(-(region.address + region.size - base) // ALIGNMENT) * ALIGNMENT
            raw: Any = (ctypes.c_uint8 * size).from_address(base)
            view = self._views[region, dtype] = np.frombuffer(raw, np.uint8).view(dtype)
        return view

    def _index(self, region: Region, addresses: Array, dtype: np.dtype[Any]) -> Array:
        return ((addresses - np.uint64(self._base(region))) // np.uint64(dtype.itemsize)).astype(
            np.int64
        )
