"""The loop's way in for torch's tensors: addresses and numbers.

Between two MoE layers the caches hold nothing of ours. An array or a named tuple then takes numba
microseconds to unwrap, and a tensor's own way to numpy takes longer than all of the routing; an
integer takes next to nothing."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch
from numba import carray, types
from numba.extending import intrinsic, overload, register_jitable

from oea_server.routing import loop, loop_data
from oea_server.routing.compiled import compiled
from oea_server.routing.loop_data import Array
from oea_server.routing.policy import Numbers
from oea_server.routing.tally import HISTOGRAMS, SUMS

SUM_COUNT = len(SUMS)

FLOATS = torch.float32, torch.bfloat16
INTEGERS = torch.int64, torch.int32
KINDS = {each: kind for dtypes in (FLOATS, INTEGERS) for kind, each in enumerate(dtypes)}
"""What can lie at an address."""


def enter(
    logits: int,
    logits_kind: int,
    batch: int,
    experts: int,
    tokens: int,
    mask: int,
    row_k0: int,
    drafts: int,
    bias: int,
    bias_kind: int,
    expert_scale: int,
    scale_kind: int,
    physical: int,
    physical_kind: int,
    copies: int,
    home: int,
    ranks: int,
    slots: int,
    room: int,
    budget: int,
    counters: int,
    counting: int,
    counted_experts: int,
    counted_ranks: int,
    placed: int,
    watched: int,
    room_watched: int,
    numbers: tuple[Any, ...],
    k: int,
    scoring: int,
    groups: int,
    top_groups: int,
    top2: int,
    renormalize: int,
    scale: float,
    zeros: int,
    at_random: int,
    seed: int,
    layer: int,
    width: int,
) -> tuple[Array, Array, Array]:
    """`loop.route` of what lies at addresses, contiguous and of a kind of `KINDS`; nothing does at
    address 0.

    Args:
        logits: [batch, experts]; the first `tokens` rows are real, or those of `mask`, [batch]
            bool.
        row_k0, drafts: [batch] int64.
        bias, expert_scale: [experts].
        physical: [experts, copies]; home: [experts] int32.
        room: an index of POOLS.
        numbers: those of `Numbers`, in a plain tuple, which is unwrapped faster.
        counters: a layer's row of a `Tally`, int64; counting: its 0-d `counting`.
        watched: [room_watched, 2] int64, what becomes of each row.

    Raises:
        ValueError: there is no room for them.
    """
    if watched and batch > room_watched:
        raise ValueError("more rows than there is room to write down what becomes of them")
    real = np.arange(batch) < tokens
    if mask:
        real = view(mask, batch, np.bool_)
    rows = loop_data.Rows(
        floats(logits, batch * experts, logits_kind).reshape(batch, experts),
        real,
        view(row_k0, batch if row_k0 else 0, np.int64),
        view(drafts, batch if drafts else 0, np.int64),
    )
    model = loop_data.Model(
        k,
        scoring,
        floats(bias, experts if bias else 0, bias_kind),
        groups,
        top_groups,
        top2 != 0,
        renormalize != 0,
        scale,
        floats(expert_scale, experts if expert_scale else 0, scale_kind),
        zeros,
    )
    mapped = experts if physical else 0
    where = loop_data.Where(
        integers(physical, mapped * copies, physical_kind).reshape(mapped, copies),
        view(home, mapped, np.int32),
        ranks,
        slots,
        room,
        budget,
    )
    size = HISTOGRAMS * (counted_experts + 1) + SUM_COUNT if counters else 0
    count = view(counting, 1, np.int64)[0] if counters else 0
    weights, ids, pool = loop.route(
        rows,
        model,
        Numbers(*numbers),
        loop_data.Draw(at_random != 0, seed, layer),
        where,
        loop_data.Counters(
            view(counters, size, np.int64),
            count,
            counted_experts,
            counted_ranks,
            placed != 0,
            view(watched, 2 * batch if watched else 0, np.int64).reshape(
                batch if watched else 0, 2
            ),
        ),
        width,
    )
    return weights, ids, pool


def view(address: int, length: int, dtype: Any) -> Array:
    """[length] numbers at an address."""
    size = length * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address) if size else b"", dtype)


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@overload(view)  # type: ignore[untyped-decorator]
def _compiled_view(address: Any, length: Any, dtype: Any) -> Any:
    def compiled_view(address: Any, length: Any, dtype: Any) -> Any:
        return carray(_pointer(address), (length,), dtype)

    return compiled_view


@register_jitable  # type: ignore[untyped-decorator]
def floats(address: int, length: int, kind: int) -> Array:
    """[length] float32, of an index of FLOATS; bfloat16 is the upper half of it."""
    if kind == 0:
        return view(address, length, np.float32)
    halves = view(address, length, np.uint16)
    bits = np.empty(length, dtype=np.uint32)
    for each in range(length):
        bits[each] = np.uint32(halves[each]) << np.uint32(16)
    return bits.view(np.float32)


@register_jitable  # type: ignore[untyped-decorator]
def integers(address: int, length: int, kind: int) -> Array:
    """[length] int64, of an index of INTEGERS."""
    if kind == 0:
        return view(address, length, np.int64)
    return view(address, length, np.int32).astype(np.int64)


LOOP = "loop", "loop_rows", "loop_pools", "loop_counts", "loop_data"

compiled_enter = compiled(enter, *LOOP, "policy", "tally", "widen", "contract")
