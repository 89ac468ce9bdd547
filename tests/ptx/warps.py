"""What the threads of a warp do together: shfl, redux, vote, activemask, elect, bar.warp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ptx.decode import Decoder, handles, only
from tests.ptx.lanes import WARP, Lanes, Reader, Step
from tests.ptx.parse import PtxError, Statement
from tests.ptx.values import Array, type_of

LANE = np.arange(WARP, dtype=np.int64)
EVERYONE = np.uint32(0xFFFFFFFF)
BIT = np.uint32(1) << LANE.astype(np.uint32)


def by_warp(lanes: Lanes, values: Array) -> Array:
    """[threads of the slice] or [1] -> [warps, 32]."""
    if len(values) == 1:
        values = np.broadcast_to(values, lanes.end - lanes.begin)
    return values.reshape(-1, WARP)


def ballot(lanes: Lanes, votes: Array) -> Array:
    """[warps, 32] bool -> [warps] uint32."""
    return np.asarray((votes * BIT).sum(axis=1, dtype=np.uint32))


def check_members(lanes: Lanes, members: Reader) -> None:
    """Raise PtxError unless just the threads that are named have come to the instruction."""
    named = members(lanes)
    if lanes.mask is None and (named == EVERYONE).all():
        return
    active = by_warp(lanes, lanes.active)
    present = ballot(lanes, active)[:, None]
    if ((by_warp(lanes, named) != present) & active).any():
        raise PtxError("other threads than its mask names have come to a warp's instruction")


@handles("shfl")
def shuffle(decoder: Decoder, statement: Statement) -> Step:
    only(statement, "sync", "up", "down", "bfly", "idx")
    mode = statement.modifiers[1]
    targets, value, offset, clamp, members = statement.operands
    target, _, inside = targets.partition("|")
    write, write_inside = decoder.writer(target, "b32"), decoder.writer(inside or "_", "pred")
    read_value, read_offset = decoder.reader(value, "b32"), decoder.reader(offset, "u32")
    read_clamp, read_members = decoder.reader(clamp, "u32"), decoder.reader(members, "u32")

    def step(lanes: Lanes) -> None:
        check_members(lanes, read_members)
        values = by_warp(lanes, read_value(lanes))
        by = read_offset(lanes).astype(np.int64) & 31
        by = by[None] if len(by) == 1 else by.reshape(-1, WARP)
        limit = read_clamp(lanes).astype(np.int64)
        limit = limit[None] if len(limit) == 1 else limit.reshape(-1, WARP)
        segment, bound = limit >> 8 & 31, limit & 31
        first, last = LANE & segment, (LANE & segment) | (bound & ~segment)
        if mode == "up":
            source = LANE - by
            valid = source >= last
        else:
            source = {"down": LANE + by, "bfly": LANE ^ by, "idx": first | (by & ~segment)}[mode]
            valid = source <= last
        source = np.where(valid, source, LANE)
        taken = (
            values[:, source[0]] if len(source) == 1 else np.take_along_axis(values, source, axis=1)
        )
        if lanes.mask is not None:
            active = by_warp(lanes, lanes.mask)
            sources = np.take_along_axis(active, np.broadcast_to(source, active.shape), axis=1)
            if (active & ~sources).any():
                raise PtxError("shfl from a thread that has not come to it")
        write(lanes, taken.reshape(-1))
        write_inside(lanes, np.broadcast_to(valid, values.shape).reshape(-1))

    return step


REDUCTIONS: dict[str, tuple[Callable[..., Array], Callable[[np.dtype[Any]], int]]] = {
    "add": (np.add.reduce, lambda dtype: 0),
    "min": (np.minimum.reduce, lambda dtype: int(np.iinfo(dtype).max)),
    "max": (np.maximum.reduce, lambda dtype: int(np.iinfo(dtype).min)),
    "and": (np.bitwise_and.reduce, lambda dtype: (1 << 8 * dtype.itemsize) - 1),
    "or": (np.bitwise_or.reduce, lambda dtype: 0),
    "xor": (np.bitwise_xor.reduce, lambda dtype: 0),
}
"""(reduction, what leaves it as it is)."""


@handles("redux")
def reduce(decoder: Decoder, statement: Statement) -> Step:
    only(statement, "sync", *REDUCTIONS)
    _, operation, kind = statement.modifiers
    if kind not in ("b32", "u32", "s32"):
        raise PtxError(f"unknown type .{kind}")
    function, neutral = REDUCTIONS[operation]
    dtype = type_of(kind)
    nothing = dtype.type(neutral(dtype))
    target, value, members = statement.operands
    write, read, read_members = (
        decoder.writer(target, kind),
        decoder.reader(value, kind),
        decoder.reader(members, "u32"),
    )

    def step(lanes: Lanes) -> None:
        check_members(lanes, read_members)
        values = by_warp(lanes, read(lanes))
        if lanes.mask is not None:
            values = np.where(by_warp(lanes, lanes.mask), values, nothing)
        write(lanes, np.repeat(function(values, axis=1, dtype=dtype), WARP))

    return step


@handles("vote")
def vote(decoder: Decoder, statement: Statement) -> Step:
    only(statement, "sync", "all", "any", "uni", "ballot")
    mode = statement.modifiers[1]
    target, value, members = statement.operands
    write = decoder.writer(target, "b32" if mode == "ballot" else "pred")
    read, read_members = decoder.reader(value, "pred"), decoder.reader(members, "u32")

    def step(lanes: Lanes) -> None:
        check_members(lanes, read_members)
        active = by_warp(lanes, lanes.active)
        votes = by_warp(lanes, read(lanes)) & active
        every, some = (votes == active).all(axis=1), votes.any(axis=1)
        found = {"all": every, "any": some, "uni": every | ~some, "ballot": ballot(lanes, votes)}[
            mode
        ]
        write(lanes, np.repeat(found, WARP))

    return step


@handles("activemask")
def active_mask(decoder: Decoder, statement: Statement) -> Step:
    only(statement)
    write = decoder.writer(statement.operands[0], "b32")
    return lambda lanes: write(lanes, np.repeat(ballot(lanes, by_warp(lanes, lanes.active)), WARP))


@handles("elect")
def elect(decoder: Decoder, statement: Statement) -> Step:
    """The lowest thread."""
    only(statement, "sync")
    targets, members = statement.operands
    target, _, chosen = targets.partition("|")
    write, write_chosen = decoder.writer(target, "b32"), decoder.writer(chosen, "pred")
    read_members = decoder.reader(members, "u32")

    def step(lanes: Lanes) -> None:
        check_members(lanes, read_members)
        first = by_warp(lanes, lanes.active).argmax(axis=1)[:, None]
        write(lanes, np.broadcast_to(first, (len(first), WARP)).reshape(-1))
        write_chosen(lanes, (first == LANE).reshape(-1))

    return step
