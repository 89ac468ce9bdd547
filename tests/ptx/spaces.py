"""Which memory an address means: a state space says it, or a generic address's window."""

from __future__ import annotations

import numpy as np

from tests.ptx.decode import Decoder, handles, only
from tests.ptx.global_memory import GlobalMemory
from tests.ptx.lanes import Lanes, Step
from tests.ptx.parse import PtxError, Statement
from tests.ptx.scratch import Pieces
from tests.ptx.values import Array

SPACES = {"global": "global", "shared": "shared", "shared::cta": "shared", "local": "local"}
WINDOWS = {"shared": 1 << 60, "local": 1 << 61}
"""Where these begin among generic addresses; below is global memory."""


def space_of(statement: Statement) -> str:
    """global, shared or local; `generic` where the statement names none."""
    return next(
        (SPACES[modifier] for modifier in statement.modifiers if modifier in SPACES), "generic"
    )


def memory(lanes: Lanes, space: str, addresses: Array) -> tuple[GlobalMemory | Pieces, Array]:
    """A memory, and the addresses in it of the threads that are meant.

    Raises:
        PtxError: one generic access to several memories.
    """
    if space == "generic":
        of_space = {
            name: (addresses >= np.uint64(begin)) & (addresses < np.uint64(2 * begin))
            for name, begin in WINDOWS.items()
        }
        space = next((name for name, inside in of_space.items() if inside.any()), "global")
        if space != "global":
            if not of_space[space].all():
                raise PtxError("generic addresses of several memories in one access")
            addresses = addresses - np.uint64(WINDOWS[space])
    if space == "global":
        return lanes.global_memory, addresses
    if space == "shared":
        return Pieces(
            lanes.shared_memory, lanes.chosen(lanes.block[lanes.begin : lanes.end])
        ), addresses
    return Pieces(lanes.local_memory, lanes.chosen(np.arange(lanes.begin, lanes.end))), addresses


@handles("cvta")
def convert_address(decoder: Decoder, statement: Statement) -> Step:
    only(statement, "to", *SPACES)
    space = space_of(statement)
    if space == "generic" or statement.modifiers[-1] != "u64":
        raise PtxError("unknown address")
    target, source = statement.operands
    window = np.uint64(WINDOWS.get(space, 0))

    def function(address: Array) -> Array:
        return address - window if "to" in statement.modifiers else address + window

    return decoder.pure(function, target, "u64", [(source, "u64")])
