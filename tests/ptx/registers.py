"""A launch's registers: one array over its threads for each, and the typed views that steps look
through."""

from __future__ import annotations

import numpy as np

from tests.ptx.decode import SPECIAL
from tests.ptx.lanes import WARP
from tests.ptx.memory import PARAMETER
from tests.ptx.program import Program
from tests.ptx.values import RAW, Array, type_of

GARBAGE = 0xA5
Grid = tuple[int, int, int]


def views_of(
    program: Program, grid: Grid, block: Array, thread: Array, arguments: list[int]
) -> list[Array]:
    """The views that a program's steps ask for, by their numbers. Each [blocks * threads].

    Args:
        block: which block each thread belongs to.
        thread: its number there.
        arguments: the bits of each parameter.
    """
    total = len(block)
    registers, special = program.kernel.registers, special_registers(grid, block, thread)
    given = dict(zip((name for name, _ in program.kernel.parameters), arguments, strict=True))
    bases: dict[str, Array] = {}
    for name, _, _ in program.slots:
        if name in bases:
            continue
        if name.startswith(PARAMETER):
            bits = given[name.removeprefix(PARAMETER)] % (1 << 64)
            bases[name] = np.full(total, bits, np.uint64)
        elif name in SPECIAL:
            bases[name] = special[name]
        elif registers[name] == "pred":
            bases[name] = np.zeros(total, bool)
        else:
            size = type_of(registers[name]).itemsize
            garbage: Array = np.full(total * size, GARBAGE, np.uint8)
            bases[name] = garbage.view(RAW[size])
    return [_view(bases[name], kind, element) for name, kind, element in program.slots]


def _view(base: Array, kind: str, element: int) -> Array:
    """A register's bits as another type; of a narrower one, which of the values that it then
    holds."""
    dtype = np.dtype(np.float16) if kind == "f16" else type_of(kind)
    if dtype.itemsize == base.dtype.itemsize:
        return base.view(dtype)
    return base.view(dtype).reshape(len(base), -1)[:, element]


def special_registers(grid: Grid, block: Array, thread: Array) -> dict[str, Array]:
    """%tid, %ctaid and so on, each [blocks * threads] uint32."""
    threads = len(block) // (grid[0] * grid[1] * grid[2])
    block, thread = block.astype(np.uint32), thread.astype(np.uint32)
    lane = thread % np.uint32(WARP)
    one = np.uint32(1)
    mask = {"eq": one << lane, "lt": (one << lane) - one}
    mask["le"] = mask["eq"] | mask["lt"]
    mask["gt"], mask["ge"] = ~mask["le"], ~mask["lt"]
    constants = {
        "%ntid.x": threads,
        "%nctaid.x": grid[0],
        "%nctaid.y": grid[1],
        "%nctaid.z": grid[2],
    }
    constants |= {"%tid.y": 0, "%tid.z": 0, "%ntid.y": 1, "%ntid.z": 1, "%nwarpid": threads // WARP}
    return {
        **{name: np.full(len(thread), value, np.uint32) for name, value in constants.items()},
        **{f"%lanemask_{order}": value for order, value in mask.items()},
        "%tid.x": thread,
        "%laneid": lane,
        "%warpid": thread // np.uint32(WARP),
        "%ctaid.x": block % np.uint32(grid[0]),
        "%ctaid.y": block // np.uint32(grid[0]) % np.uint32(grid[1]),
        "%ctaid.z": block // np.uint32(grid[0] * grid[1]),
    }
