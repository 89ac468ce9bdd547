"""One token's experts: their scores, its groups, a random order of them, the best of some."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from oea_server.routing.loop_data import SIGMOID, SOFTMAX, Array, Draw, Model


@register_jitable  # type: ignore[untyped-decorator]
def score(logits: Array, scoring: int, scores: Array) -> Any:
    """One token's scores, [N]. Returns what they sum to before softmax divides: not finite in a
    broken row."""
    highest = logits.max() if scoring == SOFTMAX else np.float32(0)
    total = np.float32(0)
    for expert in range(len(logits)):
        x = logits[expert]
        if scoring == SOFTMAX:
            scores[expert] = np.exp(x - highest)
        elif scoring == SIGMOID:
            scores[expert] = np.float32(1) / (np.float32(1) + np.exp(-x))
        else:
            scores[expert] = np.sqrt(max(x, np.float32(0)) + np.log1p(np.exp(-np.abs(x))))
        total += scores[expert]
    if scoring == SOFTMAX:
        scores /= total
    return total


@register_jitable  # type: ignore[untyped-decorator]
def members(scores: Array, choice: Array, model: Model, member: Array) -> None:
    """Which experts are in a token's best groups, [N] bool; ties to the first group."""
    size = len(scores) // model.groups
    worth = np.empty(model.groups, dtype=np.float32)
    for group in range(model.groups):
        first, second = np.float32(-np.inf), np.float32(-np.inf)
        for expert in range(group * size, (group + 1) * size):
            value = choice[expert]
            if model.top2 and len(model.bias) == 0:
                value = scores[expert]  # logits do not add up
            if value > first:
                first, second = value, first
            elif value > second:
                second = value
        worth[group] = first + second if model.top2 and size > 1 else first
    best = np.empty(model.top_groups, dtype=np.int64)
    top(worth, np.arange(model.groups), best)
    member[:] = False
    for each in best:
        member[each * size : (each + 1) * size] = True


@register_jitable  # type: ignore[untyped-decorator]
def shuffle(logits: Array, row: int, draw: Draw, choice: Array) -> None:
    """A random order of one token's experts, [N]: see `keys.random_keys`."""
    bits = logits.view(np.int32)
    low = np.int64(0xFFFFFFFF)
    for expert in range(len(logits)):
        place = np.int64(row) * 65_599 + expert
        x = np.int64(bits[expert]) & low
        x = (
            x
            + 0x9E3779B9 * (place + 1)
            + 0x85EBCA6B * (draw.layer + 1)
            + 0xC2B2AE35 * (draw.seed + 1)
        )
        x = x & low
        x = ((x ^ (x >> 16)) * 0x85EBCA6B) & low
        x = ((x ^ (x >> 13)) * 0xC2B2AE35) & low
        choice[expert] = np.float32(x >> 16)


@register_jitable  # type: ignore[untyped-decorator]
def top(choice: Array, candidates: Array, out: Array) -> int:
    """The best of the candidates, given in rising order, into `out`: best first, ties to the lowest
    id. Returns how many there are."""
    found = 0
    for expert in candidates:
        if found == len(out) and choice[expert] <= choice[out[found - 1]]:
            continue
        if found < len(out):
            found += 1
        place = found - 1
        while place > 0 and choice[out[place - 1]] < choice[expert]:
            out[place] = out[place - 1]
            place -= 1
        out[place] = expert
    return found
