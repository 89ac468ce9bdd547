"""Arithmetic and logic: add, sub, mul, mad, div, rem, min, max, abs, neg, and, or, xor, not,
shifts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ptx import floats
from tests.ptx.decode import Decoder, handles, only
from tests.ptx.lanes import Step
from tests.ptx.parse import Statement
from tests.ptx.values import FLOATS, PAIRS, Array

DOUBLE = {f"{kind}{bits}": f"{kind}{2 * bits}" for kind in "us" for bits in (8, 16, 32)}
HALVES = {"s16x2": np.dtype("i2"), "u16x2": np.dtype("u2")}


def divide(x: Array, y: Array) -> Array:
    """Towards zero; by zero it is all ones, as on NVIDIA's GPUs."""
    safe = np.where(y == 0, y.dtype.type(1), y)
    quotient = (x - np.fmod(x, safe)) // safe
    return np.where(y == 0, ~np.zeros_like(y), quotient)


def remainder(x: Array, y: Array) -> Array:
    """With the sign of x; by zero it is x."""
    return np.where(y == 0, x, np.fmod(x, np.where(y == 0, y.dtype.type(1), y)))


def high_half(x: Array, y: Array) -> Array:
    """The upper half of the product, in the type of the factors."""
    bits = 8 * x.dtype.itemsize
    if bits < 64:
        double = np.dtype(f"{x.dtype.kind}{2 * x.dtype.itemsize}")
        return np.asarray((x.astype(double) * y.astype(double)) >> double.type(bits), x.dtype)
    a, b, half, low = x.astype(np.uint64), y.astype(np.uint64), np.uint64(32), np.uint64(0xFFFFFFFF)
    cross = (a >> half) * (b & low) + ((a & low) * (b & low) >> half)
    other = (a & low) * (b >> half) + (cross & low)
    product = (a >> half) * (b >> half) + (cross >> half) + (other >> half)
    if x.dtype.kind == "i":  # a negative factor was read as 2**64 too much
        product = (
            product
            - np.where(x < 0, b, 0).astype(np.uint64)
            - np.where(y < 0, a, 0).astype(np.uint64)
        )
    return np.asarray(product, x.dtype)


OPERATIONS: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "div": divide,
    "rem": remainder,
    "min": np.minimum,
    "max": np.maximum,
    "abs": np.abs,
    "neg": np.negative,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "cnot": lambda x: (x == 0).astype(x.dtype),
}


@handles(*OPERATIONS)
def arithmetic(decoder: Decoder, statement: Statement) -> Step:
    kind = statement.modifiers[-1]
    if kind in FLOATS or kind in PAIRS:
        return floats.arithmetic(decoder, statement)
    function = OPERATIONS[statement.opcode]
    if kind in HALVES and len(statement.modifiers) == 1:
        return decoder.elementwise(statement, by_halves(function, HALVES[kind]), "b32")
    only(statement)
    return decoder.elementwise(statement, function, kind)


def by_halves(function: Callable[..., Array], dtype: np.dtype[Any]) -> Callable[..., Array]:
    """A function of 16-bit integers on both halves of 32-bit registers."""

    def both(*values: Array) -> Array:
        pairs = [np.ascontiguousarray(value).view(dtype) for value in np.broadcast_arrays(*values)]
        return np.asarray(function(*pairs), dtype).view(np.uint32)

    return both


@handles("mul", "mad")
def multiply(decoder: Decoder, statement: Statement) -> Step:
    kind = statement.modifiers[-1]
    if kind in FLOATS or kind in PAIRS:
        return floats.arithmetic(decoder, statement)
    only(statement, "lo", "hi", "wide")
    part = statement.modifiers[0]
    target, x, y, *added = statement.operands
    result = DOUBLE[kind] if part == "wide" else kind

    def product(a: Array, b: Array, c: Array | None = None) -> Array:
        if part == "hi":
            out = high_half(a, b)
        elif part == "wide":
            wide = np.dtype(f"{a.dtype.kind}{2 * a.dtype.itemsize}")
            out = a.astype(wide) * b.astype(wide)
        else:
            out = a * b
        return out if c is None else out + c

    return decoder.pure(
        product, target, result, [(x, kind), (y, kind), *((c, result) for c in added)]
    )


def shift_left(x: Array, by: Array) -> Array:
    bits = 8 * x.dtype.itemsize
    return np.where(by < bits, x << (by % bits).astype(x.dtype), x.dtype.type(0))


def shift_right(x: Array, by: Array) -> Array:
    return (
        x >> np.minimum(by, 8 * x.dtype.itemsize - 1).astype(x.dtype)
        if x.dtype.kind == "i"
        else _logical(x, by)
    )


def _logical(x: Array, by: Array) -> Array:
    bits = 8 * x.dtype.itemsize
    return np.where(by < bits, x >> (by % bits).astype(x.dtype), x.dtype.type(0))


@handles("shl", "shr")
def shift(decoder: Decoder, statement: Statement) -> Step:
    only(statement)
    kind = statement.modifiers[-1]
    target, x, by = statement.operands
    function = shift_left if statement.opcode == "shl" else shift_right
    return decoder.pure(function, target, kind, [(x, kind), (by, "u32")])


@handles("shf")
def funnel_shift(decoder: Decoder, statement: Statement) -> Step:
    only(statement, "l", "r", "wrap", "clamp")
    direction, mode, _ = statement.modifiers

    def function(low: Array, high: Array, by: Array) -> Array:
        both = (high.astype(np.uint64) << np.uint64(32)) | low
        amount = by & np.uint32(31) if mode == "wrap" else np.minimum(by, np.uint32(32))
        amount = amount.astype(np.uint64)
        return (both << amount) >> np.uint64(32) if direction == "l" else both >> amount

    target, *sources = statement.operands
    return decoder.pure(function, target, "b32", [(source, "b32") for source in sources])
