"""cvt between integers and floats, as the PTX manual has it for NaN, infinities and overflow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.ptx.decode import Decoder, handles, only
from tests.ptx.lanes import Lanes, Step
from tests.ptx.parse import PtxError, Statement
from tests.ptx.values import FLOATS, TYPES, Array

ROUND: dict[str, Callable[..., Array]] = {
    "rni": np.rint,
    "rzi": np.trunc,
    "rmi": np.floor,
    "rpi": np.ceil,
}


def to_integer(value: Array, rounding: str, kind: str, source: str) -> Array:
    """A float as an integer: clamped to its range. NaN is 0, but 1 << 63 (1 << bits - 1) of 64-bit
    results and of float64 sources."""
    dtype = TYPES[kind]
    limits = np.iinfo(dtype)
    rounded = ROUND[rounding](value.astype(np.float64))
    below, above = rounded < float(limits.min), rounded >= float(limits.max)
    nan = np.isnan(rounded)
    inside = np.where(below | above | nan, 0.0, rounded).astype(dtype)
    clamped = np.where(
        above, dtype.type(limits.max), np.where(below, dtype.type(limits.min), inside)
    )
    wide = source == "f64" or dtype.itemsize == 8
    highest = np.array([1 << (8 * dtype.itemsize - 1) if wide else 0], f"u{dtype.itemsize}").view(
        dtype
    )
    return np.where(nan, highest, clamped)


def clamp(value: Array, kind: str) -> Array:
    """An integer within another integer type's range (.sat)."""
    limits, own = np.iinfo(TYPES[kind]), np.iinfo(value.dtype)
    return np.clip(value, max(limits.min, own.min), min(limits.max, own.max))


@handles("cvt")
def convert(decoder: Decoder, statement: Statement) -> Step:
    *modifiers, kind, source = statement.modifiers
    rounding = [modifier for modifier in modifiers if modifier not in ("ftz", "sat")]
    if kind in ("bf16x2", "f16x2"):
        return _pair(decoder, statement, rounding)
    only(statement, "sat", "ftz", "rn", *ROUND)
    saturates, flushes = "sat" in modifiers, "ftz" in modifiers
    if kind not in TYPES or source not in TYPES or len(rounding) > 1:
        raise PtxError("unknown conversion")
    integral = rounding[0] if rounding and rounding[0] in ROUND else None

    def function(value: Array) -> Array:
        if flushes and source in FLOATS:
            value = np.where(
                np.abs(value) < np.finfo(np.float32).tiny, np.copysign(0, value), value
            )
        if source not in FLOATS:
            if kind in FLOATS:
                return value.astype(np.float64 if kind == "f64" else np.float32)
            return clamp(value, kind) if saturates else value.astype(TYPES[kind])
        if kind not in FLOATS:
            return to_integer(value, str(integral), kind, source)
        if integral:
            value = ROUND[integral](value)
        return np.fmin(np.fmax(value, 0), 1) if saturates else value

    if source in FLOATS and kind not in FLOATS and integral is None:
        raise PtxError("a conversion to integers needs a rounding")
    target, x = statement.operands
    return decoder.pure(function, target, kind, [(x, source)])


def _pair(decoder: Decoder, statement: Statement, rounding: list[str]) -> Step:
    """cvt.rn.bf16x2.f32 d, a, b: a is the upper half."""
    only(statement, "rn")
    if rounding != ["rn"] or statement.modifiers[-1] != "f32":
        raise PtxError("unknown conversion")
    target, upper, lower = statement.operands
    own = statement.modifiers[-2][:-2]
    read = [decoder.reader(operand, "f32") for operand in (lower, upper)]
    write = [decoder.writer(target, own, half) for half in (0, 1)]

    def step(lanes: Lanes) -> None:
        values = [reader(lanes).copy() for reader in read]
        for put, value in zip(write, values, strict=True):
            put(lanes, value)

    return step
