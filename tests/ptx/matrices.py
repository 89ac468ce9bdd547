"""ldmatrix and stmatrix: 8 x 8 matrices of 16 bits, whose rows' addresses come from eight threads
each."""

from __future__ import annotations

import numpy as np

from tests.ptx.decode import Decoder, handles, only, parts
from tests.ptx.lanes import WARP, Lanes, Step
from tests.ptx.parse import PtxError, Statement
from tests.ptx.spaces import memory
from tests.ptx.values import Array
from tests.ptx.warps import LANE, by_warp

ROW = LANE // 4
COLUMN = LANE % 4 * 2
HALF = np.dtype("u2")


def _elements(addresses: Array, matrix: int, transposed: bool) -> tuple[Array, Array]:
    """Where a thread's two elements lie. addresses [warps, 32] -> two of [warps * 32]."""
    rows = addresses[:, 8 * matrix : 8 * matrix + 8]
    if (rows % 16).any():
        raise PtxError("misaligned: a matrix's row of 16 bytes")
    if transposed:
        return tuple((rows[:, COLUMN + i] + 2 * ROW).reshape(-1) for i in (0, 1))  # type: ignore[return-value]
    first = (rows[:, ROW] + 2 * COLUMN).reshape(-1)
    return first, first + 2


def _count(statement: Statement) -> int:
    only(statement, "sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta")
    if "m8n8" not in statement.modifiers or statement.modifiers[-1] != "b16":
        raise PtxError("unknown shape")
    return int(next(modifier for modifier in statement.modifiers if modifier[0] == "x")[1:])


def _whole_warps(lanes: Lanes) -> None:
    if lanes.mask is not None:
        active = by_warp(lanes, lanes.mask)
        if (active.any(axis=1) != active.all(axis=1)).any():
            raise PtxError("not every thread of the warp has come to it")


def _addresses(lanes: Lanes, addresses: Array) -> Array:
    """[active warps, 32] int64."""
    return lanes.chosen(addresses).astype(np.int64).reshape(-1, WARP)


@handles("ldmatrix")
def load_matrix(decoder: Decoder, statement: Statement) -> Step:
    count, transposed = _count(statement), "trans" in statement.modifiers
    targets, source = statement.operands
    writers = [decoder.writer(part, "b32") for part in parts(targets)]
    if len(writers) != count:
        raise PtxError("unknown operands")
    address = decoder.address(source)

    def step(lanes: Lanes) -> None:
        _whole_warps(lanes)
        shared, _ = memory(lanes, "shared", address(lanes))
        at, loaded = _addresses(lanes, address(lanes)), []
        for matrix in range(count):
            low, high = (
                shared.load(where, HALF, 1)[0].astype(np.uint32)
                for where in _elements(at, matrix, transposed)
            )
            loaded.append(low | high << np.uint32(16))
        for write, value in zip(writers, loaded, strict=True):
            write(lanes, lanes.spread(value))

    return step


@handles("stmatrix")
def store_matrix(decoder: Decoder, statement: Statement) -> Step:
    count, transposed = _count(statement), "trans" in statement.modifiers
    target, sources = statement.operands
    readers = [decoder.reader(part, "b32") for part in parts(sources)]
    if len(readers) != count:
        raise PtxError("unknown operands")
    address = decoder.address(target)

    def step(lanes: Lanes) -> None:
        _whole_warps(lanes)
        shared, _ = memory(lanes, "shared", address(lanes))
        at = _addresses(lanes, address(lanes))
        for matrix, read in enumerate(readers):
            value = lanes.chosen(read(lanes))
            low, high = _elements(at, matrix, transposed)
            shared.store(low, [(value & np.uint32(0xFFFF)).astype(HALF)])
            shared.store(high, [(value >> np.uint32(16)).astype(HALF)])

    return step
