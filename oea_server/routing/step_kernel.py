"""The kernel of `oea_server.routing.counting`: a step's records, counted by one program a layer."""

from __future__ import annotations

import triton
import triton.language as tl

from oea_server.routing.kernel_pools import LANES, unpacked
from oea_server.routing.kernel_rows import columns_of
from oea_server.routing.kernel_tally import (
    ASSIGNMENTS,
    BUSIEST,
    MASS_KEPT,
    PIGGYBACKED,
    TOKENS,
    UNIQUE,
    VANILLA_BUSIEST,
    VANILLA_UNIQUE,
    add_step,
    add_sum,
)
from oea_server.routing.records import GUARANTEED, MAPPED, OWN, SLOTS_KEPT, TAKEN, WRITTEN
from oea_server.routing.records import TOKENS as TOKENS_OF_HEAD

OWN_, GUARANTEED_, TAKEN_ = tl.constexpr(OWN), tl.constexpr(GUARANTEED), tl.constexpr(TAKEN)
MAPPED_, TOKENS_, SLOTS_KEPT_ = (
    tl.constexpr(MAPPED),
    tl.constexpr(TOKENS_OF_HEAD),
    tl.constexpr(SLOTS_KEPT),
)
WRITTEN_ = tl.constexpr(WRITTEN)
AT_ONCE = tl.constexpr(16)
"""Rows that are read at once."""


@triton.jit(do_not_specialize=["tally_stride", "counting_ptr", "tallied", "placed", "capacity"])
def step_kernel(
    heads_ptr,
    words_ptr,
    pools_ptr,
    rows_ptr,
    kept_ptr,
    homes_ptr,
    last_ptr,
    tally_ptr,
    tally_stride,
    counting_ptr,
    tallied,
    placed,
    capacity,
    N: tl.constexpr,
    COLUMNS: tl.constexpr,
    RANKS: tl.constexpr,
    RANK_BINS: tl.constexpr,
):
    layer = tl.program_id(0)
    head = tl.load(heads_ptr + layer)
    tl.store(last_ptr + layer, head)
    if head != 0:
        batch, mapped = head & (WRITTEN_ - 1), head & MAPPED_
        counting = tl.load(counting_ptr)
        slot, place = tl.arange(0, SLOTS_KEPT_)[None, :], tl.arange(0, COLUMNS)
        expert = columns_of(COLUMNS)
        times = tl.zeros([COLUMNS], tl.int32)
        taken, guaranteed = 0, 0
        kept = tl.zeros([AT_ONCE], tl.int64)
        for start in range(0, batch, AT_ONCE):
            row = start + tl.arange(0, AT_ONCE)
            at = layer * capacity + row
            found = tl.load(
                rows_ptr + at[:, None] * SLOTS_KEPT_ + slot, mask=(row < batch)[:, None], other=-1
            )
            found = tl.where(found < 0, 0, found)
            flat = tl.reshape(found, [AT_ONCE * SLOTS_KEPT_])
            times += tl.histogram(flat & (OWN_ - 1), COLUMNS, mask=(flat & OWN_) != 0)
            taken += tl.sum(((found & TAKEN_) != 0).to(tl.int32))
            guaranteed += tl.sum(((found & GUARANTEED_) != 0).to(tl.int32))
            kept += tl.load(kept_ptr + at, mask=row < batch, other=0)
        words = tl.load(words_ptr + layer * LANES + tl.arange(0, LANES))
        pool = tl.reshape(unpacked(words[None, :], 1, COLUMNS), [COLUMNS]).to(tl.int32)
        tl.store(pools_ptr + layer * N + expert, pool != 0, mask=expert < N)
        vanilla = (times > 0).to(tl.int32)

        tally = tally_ptr + layer * tally_stride
        loaded = tl.where(placed != 0, 0, counting)  # under a map, others count what is loaded
        add_step(tally, tallied, UNIQUE, tl.sum(pool), loaded)
        add_step(tally, tallied, VANILLA_UNIQUE, tl.sum(vanilla), counting)
        if RANKS > 1:
            home = tl.load(homes_ptr + layer * N + expert, mask=expert < N, other=0)
            rank_of = home // (tallied // RANKS)
            busiest = tl.max(tl.histogram(rank_of, RANK_BINS, mask=pool != 0))
            add_step(tally, tallied, BUSIEST, busiest, loaded)
            home = tl.load(homes_ptr + layer * N + place, mask=place < N, other=0)
            rank_of = home // (tallied // RANKS)
            busiest = tl.max(tl.histogram(rank_of, RANK_BINS, mask=vanilla != 0))
            # on which rank an expert would be read
            known = tl.where((placed != 0) & (mapped == 0), 0, counting)
            add_step(tally, tallied, VANILLA_BUSIEST, busiest, known)
        add_sum(tally, tallied, TOKENS, head // TOKENS_, counting)
        add_sum(tally, tallied, ASSIGNMENTS, taken, counting)
        add_sum(tally, tallied, PIGGYBACKED, taken - guaranteed, counting)
        add_sum(tally, tallied, MASS_KEPT, tl.sum(kept), counting)
        tl.store(heads_ptr + layer, 0)
