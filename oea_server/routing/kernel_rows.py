"""One row of router logits in one warp: its order of the experts, its best, their scores.

Experts are ranked by 32-bit keys, higher is better, ties to the lowest id. Where logits are 16 bits
wide, a key holds the logit above and the inverted id below, and is the whole order; else it holds a
float alone (WIDE), and equal keys are told apart by id. A warp finds the best of a row in one
instruction (`redux`), which takes 32 bits and no more."""

from __future__ import annotations

import triton
import triton.language as tl

NONE = tl.constexpr(-(1 << 31))
"""Below every key: no expert."""
ABOVE_ALL = tl.constexpr((1 << 31) - 1)
NOBODY = tl.constexpr(0xFFFF)
"""Above every expert's id."""
TILE = tl.constexpr(128)
"""Experts that a warp reads at once: 16 bytes of float32 a lane."""
SOFTMAX, SIGMOID = tl.constexpr(0), tl.constexpr(1)  # of `contract.SCORINGS`


@triton.jit
def columns_of(COLUMNS: tl.constexpr, AT: tl.constexpr = 0):
    """The experts in the order in which the lanes of a warp hold them, [COLUMNS] int32.

    A lane reads 16 bytes at once, so a row longer than a TILE is read in several. Joined, they lie
    in the same lanes; side by side, Triton would spread the row over several warps."""
    if COLUMNS <= TILE:
        return AT + tl.arange(0, COLUMNS)
    else:
        HALF: tl.constexpr = COLUMNS // 2
        one, other = columns_of(HALF, AT), columns_of(HALF, AT + HALF)
        return tl.reshape(tl.join(one, other), [COLUMNS])


@triton.jit
def read(
    logits_ptr,
    stride,
    row,
    token,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    AT: tl.constexpr = 0,
):
    """Logits [ROWS, COLUMNS] as they come, in the order of `columns_of`; 0 outside and in rows that
    are no token."""
    if COLUMNS <= TILE:
        expert = AT + tl.arange(0, COLUMNS)
        inside = token[:, None]
        if AT + COLUMNS > N:
            inside &= (expert < N)[None, :]
        return tl.load(logits_ptr + row[:, None] * stride + expert[None, :], mask=inside, other=0.0)
    else:
        HALF: tl.constexpr = COLUMNS // 2
        one = read(logits_ptr, stride, row, token, N, ROWS, HALF, AT)
        other = read(logits_ptr, stride, row, token, N, ROWS, HALF, AT + HALF)
        return tl.reshape(tl.join(one, other), [ROWS, COLUMNS])


@triton.jit
def ordered(values, WIDE: tl.constexpr):
    """Floats as integers of the same order: negative ones run backwards, and -0.0 is 0.0. Those of
    16 bits lie above 16 zeros."""
    if WIDE:
        bits = values.to(tl.int32, bitcast=True)
        return tl.where(bits < 0, -bits + NONE, bits)
    else:
        bits = values.to(tl.int16, bitcast=True).to(tl.int32)
        return tl.where(bits < 0, -32768 - bits, bits) << 16


@triton.jit
def value_of(keys, WIDE: tl.constexpr, HALF: tl.constexpr):
    """The floats that keys were made of, float32. HALF: as float16, else bfloat16."""
    if WIDE:
        return tl.where(keys < 0, -keys + NONE, keys).to(tl.float32, bitcast=True)
    else:
        bits = keys >> 16
        bits = tl.where(bits < 0, -32768 - bits, bits)
        if HALF:
            return bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
        else:
            return (bits << 16).to(tl.float32, bitcast=True)


@triton.jit
def keys_of(order, expert, N: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr):
    """Keys [ROWS, COLUMNS] of an order whose lower half is free, if not WIDE, for the ids."""
    keys = order
    if not WIDE:
        keys |= (~expert & NOBODY)[None, :]
    if COLUMNS > N:
        keys = tl.where((expert < N)[None, :], keys, NONE)
    return keys


@triton.jit
def next_best(keys, expert, found, experts, here, WIDE: tl.constexpr):
    """Move each row's best key from `keys` [ROWS, COLUMNS] to a slot of `found` and its expert to
    one of `experts`."""
    best = tl.max(keys, axis=1)[:, None]
    found = tl.where(here, best, found)
    if WIDE:
        it = tl.min(tl.where(keys == best, expert[None, :], NOBODY), axis=1)[:, None]
        experts = tl.where(here, it, experts)
        keys = tl.where(expert[None, :] == it, NONE, keys)
    else:
        keys = tl.where(keys == best, NONE, keys)
    return found, experts, keys


@triton.jit
def top(keys, expert, K: tl.constexpr, ROWS: tl.constexpr, SLOTS: tl.constexpr, WIDE: tl.constexpr):
    """Each row's K best, best first: keys (NONE where there are no more) and experts, two of [ROWS,
    SLOTS] int32."""
    slot = tl.arange(0, SLOTS)[None, :]
    found = tl.full([ROWS, SLOTS], NONE, tl.int32)
    experts = tl.full([ROWS, SLOTS], 0, tl.int32)
    for j in tl.static_range(K):
        found, experts, keys = next_best(keys, expert, found, experts, slot == j, WIDE)
    return found, experts if WIDE else ~found & NOBODY


@triton.jit
def rounds(keys, expert, n, ROWS: tl.constexpr, SLOTS: tl.constexpr, WIDE: tl.constexpr):
    """Each row's `n` best, as `top`, for an `n` that is not known before: less code, which runs
    longer."""
    slot = tl.arange(0, SLOTS)[None, :]
    found = tl.full([ROWS, SLOTS], NONE, tl.int32)
    experts = tl.full([ROWS, SLOTS], 0, tl.int32)
    for j in range(n):
        found, experts, keys = next_best(keys, expert, found, experts, slot == j, WIDE)
    return found, experts if WIDE else ~found & NOBODY


@triton.jit
def at_least(keys, expert, best_keys, best, chosen, WIDE: tl.constexpr):
    """Which experts a row's `chosen` slots hold, [ROWS, COLUMNS] bool: they are its first ones, so
    one bound tells."""
    least = tl.min(tl.where(chosen, best_keys, ABOVE_ALL), axis=1)[:, None]
    if WIDE:
        last = tl.max(tl.where(chosen & (best_keys == least), best, -1), axis=1)[:, None]
        return (keys > least) | ((keys == least) & (expert[None, :] <= last))
    else:
        return keys >= least


@triton.jit
def one_by_one(
    expert,
    best,
    chosen,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """Experts that each row holds, for any slots, one slot after the other."""
    slot = tl.arange(0, SLOTS)[None, :]
    holds = tl.zeros([ROWS, COLUMNS], tl.int1)
    for j in tl.static_range(K):
        it = tl.max(tl.where((slot == j) & chosen, best, -1), axis=1)
        holds |= expert[None, :] == it[:, None]
    return holds


@triton.jit
def first_ranks(keys, expert, n, WIDE: tl.constexpr, COLUMNS: tl.constexpr):
    """Each row's n best, [ROWS, COLUMNS] bool, bit by bit: n is large. A loop that is not unrolled:
    it is rare."""
    least = tl.where(tl.sum((keys >= 0).to(tl.int32), axis=1) >= n, 0, NONE)
    tried = 1 << 30
    while tried > 0:
        enough = tl.sum((keys >= (least + tried)[:, None]).to(tl.int32), axis=1) >= n
        least = tl.where(enough, least + tried, least)
        tried = tried >> 1
    if WIDE:
        above = keys > least[:, None]
        equal = keys == least[:, None]
        left = n - tl.sum(above.to(tl.int32), axis=1)
        last = tl.zeros_like(least)
        tried = COLUMNS // 2
        while tried > 0:
            below = tl.sum(
                (equal & (expert[None, :] < (last + tried)[:, None])).to(tl.int32), axis=1
            )
            last = tl.where(below < left, last + tried, last)
            tried = tried >> 1
        return above | (equal & (expert[None, :] <= last[:, None]))
    else:
        return keys >= least[:, None]


@triton.jit
def shuffled(logits, row, expert, layer, seed, WIDE: tl.constexpr):
    """A random order whose lower half is free, if not WIDE, [ROWS, COLUMNS]: see
    `keys.random_keys`."""
    x = logits.to(tl.float32).to(tl.uint32, bitcast=True)
    x += (row[:, None] * 65_599 + expert[None, :] + 1).to(tl.uint32) * 0x9E3779B9
    x += (layer + 1).to(tl.uint32) * 0x85EBCA6B + (seed + 1).to(tl.uint32) * 0xC2B2AE35
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    if WIDE:
        return (x >> 16).to(tl.int32)
    else:
        return ((x & 0xFFFF0000) ^ 0x80000000).to(tl.int32, bitcast=True)


@triton.jit
def of_best_groups(
    value,
    expert,
    SIZE: tl.constexpr,
    GROUPS: tl.constexpr,
    TOP_GROUPS: tl.constexpr,
    TOP2: tl.constexpr,
    BINS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Which experts are in a row's best groups, [ROWS, COLUMNS] bool; ties to the first group."""
    group = tl.arange(0, BINS)
    worths = tl.full([ROWS, BINS], float("-inf"), tl.float32)
    for each in tl.static_range(GROUPS):
        mine = tl.where((expert // SIZE == each)[None, :], value, float("-inf"))
        worth = tl.max(mine, axis=1)
        if TOP2 and SIZE > 1:
            at = tl.min(tl.where(mine == worth[:, None], expert[None, :], NOBODY), axis=1)
            worth += tl.max(tl.where(expert[None, :] == at[:, None], float("-inf"), mine), axis=1)
        worths = tl.where(group[None, :] == each, worth[:, None], worths)
    keys = tl.where((group < GROUPS)[None, :], ordered(worths, True), NONE)
    _, best = top(keys, group, TOP_GROUPS, ROWS, BINS, True)
    return one_by_one(
        expert // SIZE, best, group[None, :] < TOP_GROUPS, TOP_GROUPS, ROWS, COLUMNS, BINS
    )


@triton.jit
def scores_of(logits, highest, SCORING: tl.constexpr):
    """What weights are proportional to: of softmax, exp(logit - highest)."""
    if SCORING == SOFTMAX:
        return tl.exp(logits - highest)
    elif SCORING == SIGMOID:
        return 1.0 / (1.0 + tl.exp(-logits))
    else:
        small = tl.exp(-tl.abs(logits))
        # log(1 + small) as a series: a logarithm of 1.00001 would lose most of it
        z = small / (2.0 + small)
        zz = z * z
        series = 1.0 + zz * (
            0.33333333 + zz * (0.2 + zz * (0.14285715 + zz * (0.11111111 + zz * 0.09090909)))
        )
        return tl.sqrt(tl.maximum(logits, 0.0) + 2.0 * z * series)
