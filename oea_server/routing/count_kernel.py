"""The kernel of `oea_server.routing.device_tally`: what ids load, counted in one program."""

from __future__ import annotations

import triton
import triton.language as tl

from oea_server.routing.kernel_floors import marked
from oea_server.routing.kernel_tally import (
    ASSIGNMENTS,
    BUSIEST,
    MASS_KEPT,
    TOKENS,
    UNIQUE,
    VANILLA_BUSIEST,
    VANILLA_UNIQUE,
    add_step,
    add_sum,
)
from oea_server.routing.tally import MASS_UNIT

MASS_UNIT_ = tl.constexpr(MASS_UNIT)

CHUNK = 512
"""Ids that are read at once: four per thread."""

# read one number at a time: see kernel.py
NUMBERS = ("num_real", "batch", "stride", "tally_ptr", "counting_ptr", "num_experts")


@triton.jit(do_not_specialize=NUMBERS)
def count_kernel(
    ids_ptr,
    stride,
    num_real,
    batch,
    tally_ptr,
    counting_ptr,
    num_experts,
    K: tl.constexpr,
    COLUMNS: tl.constexpr,
    RANKS: tl.constexpr,
    BINS_OF_RANKS: tl.constexpr,
    VANILLA: tl.constexpr,
    REAL: tl.constexpr,
    CHUNK: tl.constexpr,
):
    if REAL == "mask":
        real, rows = marked(num_real, batch), batch
    else:
        real = tl.load(num_real).to(tl.int32) if REAL == "device" else num_real
        real = tl.minimum(tl.maximum(real, 0), batch)
        rows = real
    times = tl.zeros([COLUMNS], tl.int32)
    for start in range(0, rows * K, CHUNK):
        at = start + tl.arange(0, CHUNK)
        inside = at < rows * K
        if REAL == "mask":
            inside &= tl.load(num_real + at // K, mask=inside, other=0) != 0
        ids = tl.load(ids_ptr + (at // K) * stride + at % K, mask=inside, other=-1).to(tl.int32)
        times += tl.histogram(ids, COLUMNS, mask=(ids >= 0) & (ids < num_experts))
    awake = (times > 0).to(tl.int32)

    counting = tl.load(counting_ptr)
    loaded = tl.sum(awake)
    add_step(tally_ptr, num_experts, UNIQUE, loaded, counting)
    if RANKS > 1:
        rank_of = tl.arange(0, COLUMNS) // (num_experts // RANKS)
        busiest = tl.max(tl.histogram(rank_of, BINS_OF_RANKS, mask=awake != 0))
        add_step(tally_ptr, num_experts, BUSIEST, busiest, counting)
        if VANILLA:
            add_step(tally_ptr, num_experts, VANILLA_BUSIEST, busiest, counting)
    if VANILLA:
        add_step(tally_ptr, num_experts, VANILLA_UNIQUE, loaded, counting)
        tokens = real.to(tl.int64)
        add_sum(tally_ptr, num_experts, TOKENS, tokens, counting)
        add_sum(tally_ptr, num_experts, ASSIGNMENTS, tokens * K, counting)
        add_sum(tally_ptr, num_experts, MASS_KEPT, tokens * MASS_UNIT_, counting)
