"""Two-batch overlap: SGLang runs a decode step as two, one between the kernels of the other; each
half is a pool.

A half is a batch of its own to the routers: requests side by side, tokens first, then padding. How
many of its rows are tokens SGLang keeps on the device, for graphs too, and tells each router; what
the host must know of it is read off the halves' batches, or while a graph is captured off how it
will be split.

Read of SGLang: `ForwardBatch.tbo_split_seq_index`, `tbo_children` and of each
`tbo_parent_token_range` and `num_token_non_padded`, which is the `num_token_non_padded` of
`select_experts` by way of `sglang.srt.model_executor.forward_context.ForwardContext`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from oea_server.engine import plugin
from oea_server.engine.step import Step


class Half(NamedTuple):
    """What a router gets now, of a step that runs as two."""

    start: int
    """The half's first row, among the step's rows."""
    rows: int
    """Padding included."""
    tokens: int
    """Tokens of the half, as the host knows them; all rows while a graph is captured."""
    real: torch.Tensor
    """Tokens of the half on the device, which graphs read; SGLang's own count, scalar int32."""


def untold() -> str:
    """Why the half that a router gets would be unknown, in the installed SGLang; empty if it is
    known."""
    if plugin.patched:
        return (
            "a patched SGLang does not tell our router which half it gets; oea-server patch revert,"
            " and hooks do"
        )
    context = plugin.resolve("sglang.srt.model_executor.forward_context.ForwardContext")
    if not hasattr(context, "moe_num_token_non_padded"):
        return "what this SGLang tells the routers of a half was never checked; install 0.5.23"
    return ""


def cut(rows: int, per_request: int) -> int:
    """The rows of the first half of a graph of so many: half of its requests, rounded down."""
    return rows // per_request // 2 * per_request


def of_step(split: int, tokens: int) -> tuple[int, int]:
    """The tokens of each half where the first has `split` rows; padding is behind the tokens of
    both."""
    return min(split, tokens), max(0, tokens - split)


def of_batch(forward_batch: Any, step: Step, graph: int | None) -> tuple[int, ...]:
    """The tokens of each half of a step; empty if it runs as one.

    Args:
        graph: the rows of the graph that the step replays, which is cut in the middle; None if it
            replays none.
    """
    split = getattr(forward_batch, "tbo_split_seq_index", None)
    if split is None:
        return ()
    first = int(split) * step.per_request if graph is None else cut(graph, step.per_request)
    return of_step(first, step.batch)


def half_of(forward_batch: Any, step: Step, rows: int, real: torch.Tensor | None) -> Half | None:
    """The half of a step that a router gets now; None if it gets neither: then the step's own rows,
    if the guard may.

    Args:
        forward_batch: SGLang's, of the whole step; None while a graph is captured.
        rows: those of the router's logits.
        real: what SGLang has told the router of them.
    """
    if real is None:
        return None
    # SGLang keeps both numbers side by side, and nothing else tells equal halves apart
    if step.capturing:
        which = real.storage_offset()
        if which > 1 or rows != step.halves[which]:
            return None
        return Half(sum(step.halves[:which]), rows, rows, real)
    for child in getattr(forward_batch, "tbo_children", None) or ():
        if child.num_token_non_padded is real:
            start, end = (int(each) for each in child.tbo_parent_token_range)
            mine = min(max(0, step.batch - start), end - start)
            fits = rows == int(child.tbo_padded_len) and (
                real.device.type != "cpu" or int(real) == mine
            )
            return Half(start, rows, mine, real) if fits else None
    return None
