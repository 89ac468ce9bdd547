"""Comparisons and choices: setp, set, selp."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.ptx.decode import Decoder, handles
from tests.ptx.lanes import Lanes, Step
from tests.ptx.parse import PtxError, Statement
from tests.ptx.values import FLOATS, TYPES, Array

ORDERED: dict[str, Callable[..., Array]] = {
    "eq": np.equal,
    "ne": lambda x, y: (x < y) | (x > y),
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
"""False where a number is none."""
INTEGER: dict[str, Callable[..., Array]] = {
    **ORDERED,
    "ne": np.not_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}
JOIN = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def comparison(name: str, kind: str) -> Callable[[Array, Array], Array]:
    """The comparison of a name in a type: `ltu` of floats is true where one is NaN, `lt` is not."""
    if kind not in FLOATS:
        if name not in INTEGER:
            raise PtxError(f"unknown comparison .{name}.{kind}")
        return INTEGER[name]
    if name in ("num", "nan"):
        return lambda x, y: (np.isnan(x) | np.isnan(y)) == (name == "nan")
    if name[:2] not in ORDERED or name[2:] not in ("", "u"):
        raise PtxError(f"unknown comparison .{name}.{kind}")
    ordered = ORDERED[name[:2]]
    if not name[2:]:
        return ordered
    return lambda x, y: ordered(x, y) | np.isnan(x) | np.isnan(y)


@handles("setp")
def set_predicate(decoder: Decoder, statement: Statement) -> Step:
    name, *rest, kind = [modifier for modifier in statement.modifiers if modifier != "ftz"]
    function = comparison(name, kind)
    if (rest and (len(rest) > 1 or rest[0] not in JOIN)) or kind not in TYPES:
        raise PtxError(f"unknown modifier .{'.'.join(rest)}")
    targets, x, y, *third = statement.operands
    first, _, second = targets.partition("|")
    write, write_other = decoder.writer(first, "pred"), decoder.writer(second or "_", "pred")
    read_x, read_y = decoder.reader(x, kind), decoder.reader(y, kind)
    if bool(third) != bool(rest):
        raise PtxError("unknown operands")
    if not third and not second:
        return lambda lanes: write(lanes, function(read_x(lanes), read_y(lanes)))
    join = JOIN[rest[0]] if rest else np.logical_and
    read_third = decoder.reader(third[0], "pred") if third else lambda lanes: np.array([True])

    def step(lanes: Lanes) -> None:
        found, other = function(read_x(lanes), read_y(lanes)), read_third(lanes)
        write(lanes, join(found, other))
        write_other(lanes, join(~found, other))

    return step


@handles("set")
def set_value(decoder: Decoder, statement: Statement) -> Step:
    name, result, kind = [modifier for modifier in statement.modifiers if modifier != "ftz"]
    if result not in ("u32", "s32", "f32"):
        raise PtxError(f"unknown type .{result}")
    function, target = comparison(name, kind), statement.operands[0]
    true = (
        np.float32(1)
        if result == "f32"
        else TYPES[result].type(-1 if result == "s32" else 0xFFFFFFFF)
    )

    def compare(x: Array, y: Array) -> Array:
        return np.where(function(x, y), true, true.dtype.type(0))

    return decoder.pure(
        compare, target, result, [(source, kind) for source in statement.operands[1:]]
    )


@handles("selp")
def select(decoder: Decoder, statement: Statement) -> Step:
    if len(statement.modifiers) != 1:
        raise PtxError("unknown modifier")
    kind = statement.modifiers[0]
    target, x, y, chooser = statement.operands

    def function(a: Array, b: Array, first: Array) -> Array:
        return np.where(first, a, b)

    return decoder.pure(function, target, kind, [(x, kind), (y, kind), (chooser, "pred")])
