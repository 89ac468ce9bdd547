"""The floors of a step's rows: how many tokens there are, what each is guaranteed."""

from __future__ import annotations

import triton
import triton.language as tl

from oea_server.routing.contract import RENORMALIZE_EPSILON
from oea_server.routing.kernel_rows import SOFTMAX, at_least, one_by_one, scores_of

EPSILON = tl.constexpr(RENORMALIZE_EPSILON)
MASKED_AT_ONCE = tl.constexpr(1024)


@triton.jit
def number(at):
    return tl.load(at).to(tl.float32, bitcast=True)


@triton.jit
def marked(mask_ptr, batch):
    """How many rows a mask marks."""
    real = 0
    for start in range(0, batch, MASKED_AT_ONCE):
        at = start + tl.arange(0, MASKED_AT_ONCE)
        real += tl.sum((tl.load(mask_ptr + at, mask=at < batch, other=0) != 0).to(tl.int32))
    return real


@triton.jit
def undrafted(drafts_ptr, num_real, real, batch, REAL: tl.constexpr):
    """How many of the real rows are tokens, and not guesses at what follows one."""
    tokens = 0
    for start in range(0, batch, MASKED_AT_ONCE):
        at = start + tl.arange(0, MASKED_AT_ONCE)
        token = tl.load(drafts_ptr + at, mask=at < batch, other=-1) == 0
        if REAL == "mask":
            token &= tl.load(num_real + at, mask=at < batch, other=0) != 0
        else:
            token &= at < real
        tokens += tl.sum(token.to(tl.int32))
    return tokens


@triton.jit
def logits_at(logits_ptr, stride, row, experts, inside):
    return tl.load(logits_ptr + row[:, None] * stride + experts, mask=inside, other=0.0).to(
        tl.float32
    )


@triton.jit
def total_of(logits, highest, expert, N: tl.constexpr, SCORING: tl.constexpr):
    """What a row's scores sum to, [ROWS] float32."""
    scores = scores_of(logits.to(tl.float32), highest, SCORING)
    return tl.sum(tl.where((expert < N)[None, :], scores, 0.0), axis=1)


@triton.jit
def reaching(scores, total, p, floor, ROWS: tl.constexpr, SCORING: tl.constexpr):
    """How many of a floor's scores, best first, it takes to reach p of the total. [ROWS] int32."""
    slot = tl.arange(0, scores.shape[1])[None, :]
    mass, count = tl.zeros([ROWS], tl.float64), tl.zeros([ROWS], tl.int32)
    for j in range(floor):
        score = tl.sum(tl.where(slot == j, scores, 0.0), axis=1)
        if SCORING == SOFTMAX:
            count += (mass < p).to(tl.int32)
            mass += score / total
        else:
            count += (mass / (total.to(tl.float64) + EPSILON) < p).to(tl.int32)
            mass += score
    return count


@triton.jit
def held(
    order,
    expert,
    best_keys,
    best,
    chosen,
    BIASED: tl.constexpr,
    WIDE: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """The experts of a row's `chosen` slots, [ROWS, COLUMNS] bool."""
    if BIASED:  # what holds a share of the mass need not come first then
        return one_by_one(expert, best, chosen, K, ROWS, COLUMNS, SLOTS)
    else:
        return at_least(order, expert, best_keys, best, chosen, WIDE)
