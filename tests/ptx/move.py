"""mov, with vectors in braces; and what has no effect on one GPU that runs one kernel."""

from __future__ import annotations

import numpy as np

from tests.ptx.decode import Decoder, handles, only, parts
from tests.ptx.lanes import Lanes, Step
from tests.ptx.parse import PtxError, Statement
from tests.ptx.values import type_of


@handles("mov")
def move(decoder: Decoder, statement: Statement) -> Step:
    only(statement)
    kind = statement.modifiers[-1]
    target, source = statement.operands
    if target.startswith("{"):
        return _unpack(decoder, parts(target), source, kind)
    if source.startswith("{"):
        return _pack(decoder, target, parts(source), kind)
    # bits as they are: f16 and bf16 would be computed as float32
    kind = "b16" if kind in ("f16", "bf16") else kind
    write, read = decoder.writer(target, kind), decoder.reader(source, kind)
    return lambda lanes: write(lanes, read(lanes))


def _pack(decoder: Decoder, target: str, sources: list[str], kind: str) -> Step:
    whole = type_of(kind).itemsize * 8
    each = whole // len(sources)
    write = decoder.writer(target, f"b{whole}")
    readers = [decoder.reader(source, f"b{each}") for source in sources]
    dtype = type_of(f"b{whole}").type

    def step(lanes: Lanes) -> None:
        value = readers[0](lanes).astype(dtype)
        for at, read in enumerate(readers[1:], 1):
            value = value | read(lanes).astype(dtype) << dtype(at * each)
        write(lanes, value)

    return step


def _unpack(decoder: Decoder, targets: list[str], source: str, kind: str) -> Step:
    whole = type_of(kind).itemsize * 8
    each = whole // len(targets)
    read = decoder.reader(source, f"b{whole}")
    writers = [decoder.writer(target, f"b{each}") for target in targets]
    dtype, part = type_of(f"b{whole}").type, type_of(f"b{each}")

    def step(lanes: Lanes) -> None:
        value = read(lanes).copy()
        for at, write in enumerate(writers):
            write(lanes, (value >> dtype(at * each)).astype(part))

    return step


@handles("membar", "fence", "griddepcontrol", "nanosleep", "prefetch")
def nothing(decoder: Decoder, statement: Statement) -> Step:
    """Every access here is seen at once by everyone, in the order of the program."""
    return lambda lanes: None


@handles("trap")
def trap(decoder: Decoder, statement: Statement) -> Step:
    def step(lanes: Lanes) -> None:
        raise PtxError(f"trap by {int(np.count_nonzero(lanes.active))} threads")

    return step
