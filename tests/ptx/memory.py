"""Loads, stores and atomics. Caches and memory orders change nothing here, where every access is
seen at once."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from tests.ptx.decode import Decoder, handles, only, parts
from tests.ptx.lanes import Lanes, Step
from tests.ptx.parse import PtxError, Statement
from tests.ptx.spaces import SPACES, memory, space_of
from tests.ptx.values import PAIRS, TYPES, Array, type_of

SCOPES = ("cta", "cluster", "gpu", "sys")
ORDERS = ("weak", "relaxed", "acquire", "release", "acq_rel", "volatile")
CACHES = ("ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc")
EVICTION = re.compile(r"L1::\w+|L2::(?:64|128|256)B")
PARAMETER = "param:"
"""What the names of parameters' views begin with."""


def _layout(statement: Statement) -> tuple[str, int]:
    """(type, how many values) of a load or a store."""
    kind, counts = statement.modifiers[-1], {"v2": 2, "v4": 4, "v8": 8}
    plain = [modifier for modifier in statement.modifiers if not EVICTION.fullmatch(modifier)]
    for modifier in plain:
        if modifier not in (*SCOPES, *ORDERS, *CACHES, *SPACES, *counts, *TYPES, "param"):
            raise PtxError(f"unknown modifier .{modifier}")
    count = next((counts[modifier] for modifier in plain if modifier in counts), 1)
    if kind not in TYPES or kind == "pred":
        raise PtxError(f"unknown type .{kind}")
    bits = 8 * type_of(kind).itemsize
    raw = kind if kind[0] == "s" else f"b{bits}"  # extended by its sign, or as bits
    return raw, count


@handles("ld")
def load(decoder: Decoder, statement: Statement) -> Step:
    kind, count = _layout(statement)
    target, source = statement.operands
    if "param" in statement.modifiers:
        return _load_parameter(decoder, target, source, kind)
    writers = [decoder.writer(part, kind) for part in parts(target)]
    if len(writers) != count:
        raise PtxError("unknown operands")
    address, dtype, space = decoder.address(source), type_of(kind), space_of(statement)

    def step(lanes: Lanes) -> None:
        where, at = memory(lanes, space, lanes.chosen(address(lanes)))
        for write, value in zip(writers, where.load(at, dtype, count), strict=True):
            write(lanes, lanes.spread(value))

    return step


def _load_parameter(decoder: Decoder, target: str, source: str, kind: str) -> Step:
    name = source.strip("[] ")
    if name not in dict(decoder.kernel.parameters):
        raise PtxError(f"unknown parameter {name}")
    slot, write = decoder.slot(PARAMETER + name, kind), decoder.writer(target, kind)
    return lambda lanes: write(lanes, lanes.slots[slot][lanes.begin : lanes.end])


@handles("st")
def store(decoder: Decoder, statement: Statement) -> Step:
    kind, count = _layout(statement)
    target, source = statement.operands
    readers = [decoder.reader(part, kind) for part in parts(source)]
    if len(readers) != count:
        raise PtxError("unknown operands")
    address, space = decoder.address(target), space_of(statement)

    def step(lanes: Lanes) -> None:
        where, at = memory(lanes, space, lanes.chosen(address(lanes)))
        where.store(at, [lanes.chosen(read(lanes)) for read in readers])

    return step


ATOMICS: dict[str, Callable[[Array, Array], Array]] = {
    "add": lambda old, value: old + value,
    "and": lambda old, value: old & value,
    "or": lambda old, value: old | value,
    "xor": lambda old, value: old ^ value,
    "min": np.fmin,
    "max": np.fmax,
    "exch": lambda old, value: value,
    "inc": lambda old, value: np.where(old >= value, 0, old + 1).astype(old.dtype),
    "dec": (
        lambda old, value: np.where((old == 0) | (old > value), value, old - 1).astype(old.dtype)
    ),
}


@handles("atom", "red")
def atomic(decoder: Decoder, statement: Statement) -> Step:
    """One thread after the other. `red` returns nothing."""
    only(statement, "noftz", *SPACES, *ORDERS, *SCOPES, *ATOMICS, "cas")
    kind, space = statement.modifiers[-1], space_of(statement)
    operation = next((m for m in statement.modifiers if m in ATOMICS or m == "cas"), None)
    if operation is None or kind in ("f16", "bf16", *PAIRS):
        raise PtxError("unknown atomic")
    operands = statement.operands if statement.opcode == "atom" else ("_", *statement.operands)
    target, place, *values = operands
    if len(values) != 1 + (operation == "cas"):
        raise PtxError("unknown operands")
    write, address, dtype = decoder.writer(target, kind), decoder.address(place), type_of(kind)
    readers = [decoder.reader(value, kind) for value in values]

    def step(lanes: Lanes) -> None:
        where, at = memory(lanes, space, lanes.chosen(address(lanes)))
        given = [lanes.chosen(read(lanes)) for read in readers]
        found = np.empty(len(at), dtype)
        for lane, (array, index) in enumerate(where.cells(at, dtype)):
            found[lane] = old = array[index]
            if operation == "cas":
                array[index] = given[1][lane] if old == given[0][lane] else old
            else:
                array[index] = ATOMICS[operation](old, given[0][lane])
        write(lanes, lanes.spread(found))

    return step
