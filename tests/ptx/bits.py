"""Fields, bytes and counts of bits: bfe, bfi, bfind, brev, clz, popc, prmt, lop3."""

from __future__ import annotations

import numpy as np

from tests.ptx.decode import Decoder, handles, only
from tests.ptx.lanes import Step
from tests.ptx.parse import Statement
from tests.ptx.values import Array, bit_length, literal


def _ones(length: Array, bits: int) -> Array:
    """So many low bits set, in unsigned integers of `bits`."""
    full = np.uint64((1 << bits) - 1)
    held = np.minimum(length, np.uint32(63)).astype(np.uint64)
    below = (np.uint64(1) << held) - np.uint64(1)
    return np.where(length >= bits, full, below & full).astype(f"u{bits // 8}")


def extract(x: Array, position: Array, length: Array) -> Array:
    """Bits `position` … `position + length - 1`; a signed field is extended by its highest bit."""
    bits = 8 * x.dtype.itemsize
    position, length = position & np.uint32(0xFF), length & np.uint32(0xFF)
    start = np.minimum(position, np.uint32(bits - 1)).astype(x.dtype)
    unsigned = x.view(f"u{bits // 8}")
    field = np.where(
        position < bits, unsigned >> start.view(unsigned.dtype), unsigned.dtype.type(0)
    )
    field = field & _ones(length, bits)
    if x.dtype.kind == "u":
        return field
    highest = np.minimum(position.astype(np.int64) + length - 1, bits - 1).clip(0).astype(x.dtype)
    negative = ((x >> highest) & 1 != 0) & (length > 0)
    inside = np.clip(np.minimum(position.astype(np.int64) + length, bits) - position, 0, bits)
    filled = field | np.where(
        negative, ~_ones(inside.astype(np.uint32), bits), unsigned.dtype.type(0)
    )
    return np.asarray(filled).view(x.dtype)


def insert(field: Array, x: Array, position: Array, length: Array) -> Array:
    """x with its bits `position` … `position + length - 1` taken from the low bits of `field`."""
    bits = 8 * x.dtype.itemsize
    position, length = position & np.uint32(0xFF), length & np.uint32(0xFF)
    start = np.minimum(position, np.uint32(bits - 1)).astype(x.dtype)
    mask = np.where(position < bits, _ones(length, bits) << start, x.dtype.type(0))
    return np.asarray((x & ~mask) | ((field << start) & mask))


@handles("bfe")
def extract_field(decoder: Decoder, statement: Statement) -> Step:
    only(statement)
    kind = statement.modifiers[-1]
    target, x, position, length = statement.operands
    return decoder.pure(extract, target, kind, [(x, kind), (position, "u32"), (length, "u32")])


@handles("bfi")
def insert_field(decoder: Decoder, statement: Statement) -> Step:
    only(statement)
    kind = statement.modifiers[-1]
    target, field, x, position, length = statement.operands
    return decoder.pure(
        insert, target, kind, [(field, kind), (x, kind), (position, "u32"), (length, "u32")]
    )


@handles("bfind")
def find_highest(decoder: Decoder, statement: Statement) -> Step:
    only(statement, "shiftamt")
    kind, target, x = statement.modifiers[-1], *statement.operands

    def function(value: Array) -> Array:
        bits = 8 * value.dtype.itemsize
        unsigned = (
            np.where(value < 0, ~value, value).view(f"u{bits // 8}") if kind[0] == "s" else value
        )
        at = bit_length(unsigned) - np.uint32(1)  # none: all ones
        if "shiftamt" in statement.modifiers:
            return np.where(at == np.uint32(0xFFFFFFFF), at, np.uint32(bits - 1) - at)
        return at

    return decoder.pure(function, target, "u32", [(x, kind)])


def reversed_bits(value: Array) -> Array:
    bits = 8 * value.dtype.itemsize
    out = np.zeros_like(value)
    for at in range(bits):
        out |= ((value >> value.dtype.type(at)) & value.dtype.type(1)) << value.dtype.type(
            bits - 1 - at
        )
    return out


@handles("brev")
def reverse(decoder: Decoder, statement: Statement) -> Step:
    only(statement)
    return decoder.elementwise(statement, reversed_bits, statement.modifiers[-1])


@handles("clz", "popc")
def count(decoder: Decoder, statement: Statement) -> Step:
    only(statement)
    kind, target, x = statement.modifiers[-1], *statement.operands

    def leading_zeros(value: Array) -> Array:
        return np.uint32(8 * value.dtype.itemsize) - bit_length(value)

    return decoder.pure(
        np.bitwise_count if statement.opcode == "popc" else leading_zeros,
        target,
        "u32",
        [(x, kind)],
    )


@handles("prmt")
def permute_bytes(decoder: Decoder, statement: Statement) -> Step:
    only(statement)  # the default mode: no .f4e and the like

    def function(low: Array, high: Array, selector: Array) -> Array:
        both = low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))
        out: Array = np.zeros(both.shape, np.uint64)
        for at in range(4):
            chosen = (selector >> np.uint32(4 * at)) & np.uint32(0xF)
            byte = (both >> ((chosen & np.uint32(7)) * np.uint32(8)).astype(np.uint64)) & np.uint64(
                0xFF
            )
            sign = np.where(byte & np.uint64(0x80), np.uint64(0xFF), np.uint64(0))
            byte = np.where(chosen & np.uint32(8), sign, byte)
            out = out | byte << np.uint64(8 * at)
        return out

    target, *sources = statement.operands
    return decoder.pure(function, target, "b32", [(source, "b32") for source in sources])


@handles("lop3")
def any_logic(decoder: Decoder, statement: Statement) -> Step:
    only(statement)
    target, *sources, table = statement.operands
    rows = int(literal(table, "u32")[0])

    def function(x: Array, y: Array, z: Array) -> Array:
        out = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), np.uint32)
        for row in range(8):
            if rows >> row & 1:
                out |= (x if row & 4 else ~x) & (y if row & 2 else ~y) & (z if row & 1 else ~z)
        return out

    return decoder.pure(function, target, "b32", [(source, "b32") for source in sources])
