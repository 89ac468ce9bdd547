"""The pool of a step as bits: every lane of a warp has one word, for the experts that it holds of
each row.

And pools that know the ranks: see `oea_server.routing.widen`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from oea_server.routing import records
from oea_server.routing.knobs import FIELDS
from oea_server.routing.policy import POOLS
from oea_server.routing.ranking import ID_BITS, ID_MASK

LANES = tl.constexpr(records.LANES)
PARTS = tl.constexpr(32)
"""Programs whose words are read at once: eight words a thread."""
ROWS_AT_ONCE = tl.constexpr(8)
"""Rows whose words are asked for before the first of them has come."""
ID_BITS_ = tl.constexpr(ID_BITS)
ID_MASK_ = tl.constexpr(ID_MASK)
UNION, FILL, BUDGET = (tl.constexpr(POOLS.index(pool)) for pool in ("union", "fill", "budget"))
KIND, BUDGET_AT = tl.constexpr(FIELDS.index("kind")), tl.constexpr(FIELDS.index("budget"))


@triton.jit
def either(a, b):
    return a | b


@triton.jit
def packed(holds, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """[ROWS, COLUMNS] bool as words, [ROWS, LANES] int32. No lane asks another: its experts lie
    side by side."""
    EACH: tl.constexpr = COLUMNS // LANES
    bit = tl.arange(0, EACH)[None, None, :]
    return tl.reduce(tl.reshape(holds.to(tl.int32), [ROWS, LANES, EACH]) << bit, 2, either)


@triton.jit
def unpacked(words, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Words [ROWS, LANES] as [ROWS, COLUMNS] bool."""
    bit = tl.arange(0, COLUMNS // LANES)[None, None, :]
    return tl.reshape((words[:, :, None] >> bit) & 1, [ROWS, COLUMNS]) != 0


@triton.jit
def gathered(words_ptr, parts):
    """What any of `parts` programs holds, [LANES] int32."""
    lane = tl.arange(0, LANES)
    words = tl.zeros([LANES], tl.int32)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        at = words_ptr + part[:, None] * LANES + lane[None, :]
        words |= tl.reduce(tl.load(at, mask=(part < parts)[:, None], other=0), 0, either)
    return words


@triton.jit
def seen_by(words_ptr, drafts_ptr, row, batch, ROWS: tl.constexpr):
    """What a row may take: what it holds itself, and what tokens, its ancestors and guesses no
    deeper do: see `loop_pools.seen_from`. [ROWS, LANES] int32."""
    lane = tl.arange(0, LANES)
    draft = tl.load(drafts_ptr + row, mask=row < batch, other=0).to(tl.int64)
    depth, ancestors = tl.maximum(draft, 0), ~tl.minimum(draft, -1)
    words = tl.zeros([ROWS, LANES], tl.int32)
    for start in range(0, batch, ROWS_AT_ONCE):
        # side by side, else each waits for the one before it
        for step in tl.static_range(ROWS_AT_ONCE):
            other = start + step
            deep = tl.load(drafts_ptr + other, mask=other < batch, other=-1)
            back = row - other - 1
            leads = (((ancestors >> (back & 63)) & 1) != 0) & (back >= 0) & (back < 63)
            may = ((deep >= 0) & (deep <= depth)) | (other == row) | leads
            theirs = tl.load(words_ptr + other * LANES + lane, mask=other < batch, other=0)
            words |= tl.where(may[:, None], theirs[None, :], 0)
    return words


@triton.jit
def loads(experts, rank_of, BINS: tl.constexpr):
    """How many of a set are on each rank. [BINS] int32."""
    rank = tl.arange(0, BINS)
    return tl.sum(tl.where(rank[:, None] == rank_of[None, :], experts[None, :], 0), axis=1)


@triton.jit
def homes(
    pool,
    expert,
    physical_ptr,
    stride,
    N: tl.constexpr,
    RANKS: tl.constexpr,
    SLOTS: tl.constexpr,
    REPLICAS: tl.constexpr,
    SPARE: tl.constexpr,
    BINS: tl.constexpr,
    COPIES: tl.constexpr,
):
    """Which physical expert each expert is read from: see `widen.homes`. [COLUMNS] int32."""
    physical: tl.constexpr = RANKS * SLOTS
    home = tl.load(physical_ptr + expert * stride, mask=expert < N, other=0).to(tl.int32)
    if SPARE > 0:
        second = tl.load(physical_ptr + expert * stride + 1, mask=expert < N, other=-1).to(tl.int32)
        left = second >= 0
        load = loads(tl.where(left, 0, pool), home // SLOTS, BINS)
        rank = tl.arange(0, BINS)
        copy = tl.arange(0, COPIES)
        for _ in range(SPARE):
            turn = tl.min(tl.where(left, tl.where(pool != 0, expert, expert + N), 2 * N))
            mine = turn % N
            at = tl.load(
                physical_ptr + mine * stride + copy,
                mask=(copy < REPLICAS) & (turn < 2 * N),
                other=-1,
            )
            at = at.to(tl.int32)
            there = tl.sum(
                tl.where(rank[:, None] == (at // SLOTS)[None, :], load[:, None], 0), axis=0
            )
            chosen = tl.min(tl.where(at >= 0, there * physical + at, 1 << 30)) % physical
            home = tl.where((expert == mine) & (turn < 2 * N), chosen, home)
            load += tl.where((rank == chosen // SLOTS) & (turn < 2 * N), 1, 0)
            left = left & (expert != mine)
    return home


@triton.jit
def widen(pool, wanted, expert, rank_of, target, BINS: tl.constexpr, N: tl.constexpr):
    """The pool and each rank's most wanted experts, up to `target` or, if that is 0, to the busiest
    rank's count: see `widen.widen`. [COLUMNS] int32."""
    rank = tl.arange(0, BINS)
    here = (rank[:, None] == rank_of[None, :]) & (expert < N)[None, :]
    load = tl.sum(tl.where(here, pool[None, :], 0), axis=1)
    target = tl.where(target == 0, tl.max(load), target)
    low_bits = (~expert & ID_MASK_).to(tl.int64)
    keys = tl.where((wanted > 0) & (pool == 0), (wanted << ID_BITS_) | low_bits, -1)
    more = 1
    while more > 0:  # in each round every rank with room takes one
        best = tl.max(tl.where(here & (load < target)[:, None], keys[None, :], -1), axis=1)
        takes = here & (keys[None, :] == best[:, None]) & (best >= 0)[:, None]
        taken = tl.max(takes.to(tl.int32), axis=0)
        pool |= taken
        keys = tl.where(taken != 0, -1, keys)
        load += (best >= 0).to(tl.int32)
        more = tl.max(taken)
    return pool


@triton.jit
def kind_at(numbers_ptr, RANKS: tl.constexpr):
    """How the pool is widened; on one rank no other has room to fill."""
    kind = tl.load(numbers_ptr + KIND)
    if RANKS == 1:
        kind = tl.where(kind == FILL, UNION, kind)
    return kind


@triton.jit
def on_ranks(
    words,
    wanted,
    kind,
    numbers_ptr,
    expert,
    physical_ptr,
    physical_stride,
    home_ptr,
    homes_ptr,
    N: tl.constexpr,
    COLUMNS: tl.constexpr,
    RANKS: tl.constexpr,
    SLOTS_OF_RANK: tl.constexpr,
    REPLICAS: tl.constexpr,
    SPARE: tl.constexpr,
    RANK_BINS: tl.constexpr,
    COPIES: tl.constexpr,
):
    """The union of the floors and what the ranks have room for beside it, [LANES] int32. Where each
    expert is read goes to `home_ptr`, and to `homes_ptr` to be counted."""
    pool = tl.reshape(unpacked(words[None, :], 1, COLUMNS), [COLUMNS]).to(tl.int32)
    home = homes(
        pool,
        expert,
        physical_ptr,
        physical_stride,
        N,
        RANKS,
        SLOTS_OF_RANK,
        REPLICAS,
        SPARE,
        RANK_BINS,
        COPIES,
    )
    tl.store(home_ptr + expert, home, mask=expert < N)
    tl.store(homes_ptr + expert, home, mask=expert < N)
    if kind != UNION:
        target = tl.where(kind == BUDGET, tl.load(numbers_ptr + BUDGET_AT), 0)
        pool = widen(pool, wanted, expert, home // SLOTS_OF_RANK, target, RANK_BINS, N)
        words = tl.reshape(packed((pool != 0)[None, :], 1, COLUMNS), [LANES])
    return words
