"""The threads that execute an instruction together, and what an instruction can see of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.ptx.global_memory import GlobalMemory
from tests.ptx.scratch import Scratch
from tests.ptx.values import Array

WARP = 32


class Lanes:
    """Some of a launch's threads, all of which have come to the same instruction.

    They are a slice of whole warps of the launch's threads (block after block), and a mask where
    not every thread of the slice is meant. An instruction reads and writes registers as arrays
    over the slice; what it computes for threads outside the mask is thrown away.
    """

    __slots__ = (
        "begin",
        "block",
        "end",
        "global_memory",
        "local_memory",
        "mask",
        "shared_memory",
        "slots",
    )

    def __init__(
        self,
        slots: list[Array],
        block: Array,
        global_memory: GlobalMemory,
        shared_memory: Scratch,
        local_memory: Scratch,
    ) -> None:
        self.slots = slots
        """Typed views of the registers, [threads]: see `Decoder`."""
        self.block = block
        """Which of the launch's blocks each thread belongs to, [threads]."""
        self.global_memory = global_memory
        self.shared_memory = shared_memory
        """Of blocks."""
        self.local_memory = local_memory
        """Of threads."""
        self.begin = self.end = 0
        self.mask: Array | None = None

    @property
    def active(self) -> Array:
        """The mask, [end - begin] bool."""
        return np.ones(self.end - self.begin, bool) if self.mask is None else self.mask

    def chosen(self, values: Array) -> Array:
        """The threads' own of an array over the slice, or of one element for all."""
        if len(values) == 1:
            values = np.broadcast_to(values, self.end - self.begin)
        return values if self.mask is None else values[self.mask]

    def spread(self, values: Array) -> Array:
        """The inverse of `chosen`; 0 for the others."""
        if self.mask is None:
            return values
        out = np.zeros(self.end - self.begin, values.dtype)
        out[self.mask] = values
        return out


Step = Callable[[Lanes], None]
Reader = Callable[[Lanes], Array]
Writer = Callable[[Lanes, Array], None]
