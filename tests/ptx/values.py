"""PTX's types in numpy, and its literals. bf16 and f16 are stored narrow and computed as
float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tests.ptx.parse import PtxError

Array = npt.NDArray[Any]

TYPES: dict[str, np.dtype[Any]] = {
    **{f"{kind}{bits}": np.dtype(f"u{bits // 8}") for kind in "bu" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"f{bits}": np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)},
    "bf16": np.dtype("u2"),
    "f16x2": np.dtype("u4"),
    "bf16x2": np.dtype("u4"),
    "pred": np.dtype(bool),
}
FLOATS = ("f16", "bf16", "f32", "f64")
NARROW = ("f16", "bf16")
PAIRS = {"f16x2": "f16", "bf16x2": "bf16"}
RAW: dict[int, np.dtype[Any]] = {
    1: np.dtype("u1"),
    2: np.dtype("u2"),
    4: np.dtype("u4"),
    8: np.dtype("u8"),
}
"""Bytes -> unsigned integers of that size."""


def type_of(kind: str) -> np.dtype[Any]:
    """The numpy type of a PTX type.

    Raises:
        PtxError: it is none of those that the interpreter knows.
    """
    if kind not in TYPES:
        raise PtxError(f"unknown type .{kind}")
    return TYPES[kind]


def literal(text: str, kind: str) -> Array:
    """A literal operand as one element of a type.

    Raises:
        PtxError: it is no literal, or a float where an integer must be.
    """
    dtype = type_of(kind)
    if kind == "pred":
        return np.array([int(text, 0) != 0])
    size = dtype.itemsize
    if text[:2] in ("0f", "0F", "0d", "0D"):
        width = 4 if text[1] in "fF" else 8
        if width != size:
            raise PtxError(f"literal {text} where .{kind} is wanted")
        bits = int(text[2:], 16)
    else:
        if kind in ("f32", "f64"):
            raise PtxError(f"literal {text} where .{kind} is wanted")
        try:
            bits = int(text.rstrip("U"), 0)
        except ValueError:
            raise PtxError(f"unknown operand {text}") from None
    return np.array([bits & ((1 << 8 * size) - 1)], RAW[size]).view(dtype)


def widened(bits: Array) -> Array:
    """bf16 bits -> float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def narrowed(values: Array) -> Array:
    """float32 -> bf16 bits, to the nearest, ties to even; NaN becomes 0x7fff, as in PTX."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FFF), rounded)


def bit_length(values: Array) -> Array:
    """Bits up to the highest one set: 0 for 0. Unsigned integers -> uint32."""
    length = np.zeros(values.shape, np.uint32)
    shift = values.dtype.itemsize * 4
    while shift:
        high = values >> values.dtype.type(shift)
        more = high != 0
        length += more * np.uint32(shift)
        values = np.where(more, high, values)
        shift //= 2
    return np.asarray(length + (values != 0))
