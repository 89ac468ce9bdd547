"""Ranks with batches of their own (DP attention): whose rows a layer's router gets, and which of
them are tokens.

Without an all-to-all backend SGLang gathers all ranks' rows before the router. Every rank then sees
every row, and so chooses the same experts from one pool over all of them, without asking anybody.
What must be the same on all ranks comes from what SGLang has told all of them alike. With such a
backend a router gets its own rank's rows, and routes them by themselves; the backend then takes
each to where its experts are.

Read of SGLang: `ForwardBatch.global_num_tokens_cpu`, `is_extend_in_batch` and
`global_dp_buffer_len`, and `sglang.srt.layers.moe.utils.is_moe_input_scattered_across_dp_ranks`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch

from oea_server.engine import drafts, options
from oea_server.engine.drafts import Drafts
from oea_server.engine.step import Step


class Ranks(NamedTuple):
    """Attention-DP ranks, each of which has a batch of its own."""

    ranks: int
    own: int
    """The attention-DP rank that the process belongs to."""
    together: bool = True
    """Whether a router gets the rows of all ranks; else the rows of its own rank alone."""
    tree: bool = False
    """Whether drafts, if there are any, may be branches of a tree (`engine.drafts`)."""


def ranks() -> Ranks | None:
    """The server's attention-DP ranks; None where all ranks have the same batches.

    Raises:
        ValueError: one batch is dealt out over several ranks; the message says by what.
    """
    if not torch.distributed.is_initialized():
        return None
    from sglang.srt.layers.moe.utils import get_moe_a2a_backend
    from sglang.srt.runtime_context import get_parallel

    parallel, alone = get_parallel(), routed_alone()
    if alone and parallel.attn_tp_size > 1:
        backend = get_moe_a2a_backend()
        raise ValueError(
            f"{'FP4 all-gather' if backend.is_none() else f'--moe-a2a-backend {backend.value}'}:"
            f" {options.DEALT_OUT}"
        )
    if parallel.attn_dp_size == 1:
        return None
    return Ranks(
        parallel.attn_dp_size, parallel.attn_dp_rank, together=not alone, tree=grows_trees()
    )


def grows_trees() -> bool:
    """Whether drafts are trees, as all ranks know it: `drafts.of` reads it off a batch, which an
    idle rank lacks."""
    from sglang.srt.runtime_context import get_spec

    spec = get_spec()
    return spec.speculative_algorithm == "NGRAM" or (spec.speculative_eagle_topk or 1) > 1


def routed_alone() -> bool:
    """Whether a router gets its own rank's rows alone: `is_moe_input_scattered_across_dp_ranks`,
    not in 0.5.17."""
    from sglang.srt.layers.moe import utils

    theirs = getattr(utils, "is_moe_input_scattered_across_dp_ranks", None)
    if theirs is not None:
        return bool(theirs())
    return (
        not utils.get_moe_a2a_backend().is_none()
        or utils.should_use_flashinfer_cutlass_moe_fp4_allgather()
    )


def frozen() -> str | None:
    """Why the settings cannot change while the server runs, None if they can."""
    if not torch.distributed.is_initialized():
        return None
    from sglang.srt.runtime_context import get_parallel

    parallel = get_parallel()
    if parallel.attn_dp_size == 1 or not parallel.enable_dp_attention_local_control_broadcast:
        return None
    return (
        "--enable-dp-attention-local-control-broadcast: a request for a change reaches each rank"
        " between other steps, so that for some steps ranks would route differently; start anew"
        " with other knobs"
    )


def counts_of(forward_batch: Any) -> tuple[int, ...]:
    """The tokens of each rank, in order of ranks, as long as the batch is not padded; empty if they
    are unknown."""
    return tuple(
        int(count) for count in getattr(forward_batch, "global_num_tokens_cpu", None) or ()
    )


def extends(forward_batch: Any) -> bool:
    """Whether any rank prefills in this step, which then is a decode step on no rank."""
    return bool(getattr(forward_batch, "is_extend_in_batch", False))


def step_of(here: Ranks, forward_batch: Any, of: Drafts, *, counted: bool) -> Step | None:
    """The decode step that a batch of this rank is a part of, an idle rank's too; None if it is
    part of none.

    Where rows come together the same on all ranks, but for `counted`. Else an idle rank's has no
    tokens: it may replay a graph, which must not take padding for tokens.

    Args:
        of: the drafts of this rank's own batch.
    """
    mode, counts = forward_batch.forward_mode, counts_of(forward_batch)
    if not (mode.is_idle() or drafts.is_step(mode)):
        return None
    if not here.together:
        return Step(int(forward_batch.batch_size) * of.per_request, counted, False, *of)
    if extends(forward_batch) or not sum(counts):
        return None
    return Step(sum(counts), counted, False, *drafts_of(here, forward_batch), counts)


def drafts_of(here: Ranks, forward_batch: Any) -> Drafts:
    """The drafts of all ranks, which an idle rank's own batch does not tell: SGLang gives every
    rank's requests and rows."""
    requests = getattr(forward_batch, "original_global_num_tokens_cpu", None) or counts_of(
        forward_batch
    )
    per_request = sum(counts_of(forward_batch)) // max(1, sum(int(each) for each in requests))
    return Drafts(per_request, here.tree) if per_request > 1 else drafts.NONE


def depths(slots: tuple[int, ...], of: Drafts, device: torch.device) -> torch.Tensor:
    """`drafts.depths` of rows in slots, each of which begins with a token."""
    return torch.cat([drafts.depths(slot, of, device) for slot in slots])


def speaks(here: Ranks, forward_batch: Any) -> bool:
    """Whether this rank counts a step: its own; or all ranks', if it is the first with tokens,
    which knows whose."""
    counts = counts_of(forward_batch)
    return (
        not here.together
        or next((rank for rank, count in enumerate(counts) if count), None) == here.own
    )


def problem_of(here: Ranks, forward_batch: Any, rows: int) -> str | None:
    """Why the tokens among a step's rows are unknown; None if they are known, or the step is not
    routed.

    Args:
        rows: those of this rank, without padding.
    """
    mode, counts = forward_batch.forward_mode, counts_of(forward_batch)
    if not (mode.is_idle() or drafts.is_step(mode)) or (extends(forward_batch) and here.together):
        return None
    if mode.is_idle() and (len(counts) == here.ranks or not here.together):
        return None
    # of a rank that routes alone SGLang may say its own tokens only, where no other rank needs to
    # know
    mine = counts[0] if len(counts) == 1 and not here.together else None
    if rows == (counts[here.own] if len(counts) == here.ranks else mine):
        return None
    said = ", ".join(map(str, counts)) or "none"
    return (
        f"a decode step of {rows} rows on rank {here.own} of {here.ranks} is declared to have these"
        f" tokens: {said}"
    )


def slots_of(step: Step, forward_batch: Any, captured: int) -> tuple[int, ...]:
    """How many rows each rank has in what a router gets, its tokens first, then its padding.

    Args:
        captured: rows of one rank in the graph that the step replays; those of its longest rank
            where there is none.
    """
    if step.capturing:
        return step.of_ranks
    return (
        counts_of(forward_batch) if is_padded(forward_batch) else (captured,) * len(step.of_ranks)
    )


def is_padded(forward_batch: Any) -> bool:
    """Whether SGLang has padded a batch by now, in place, to run it without a graph; then its
    counts are the slots'."""
    return getattr(forward_batch, "global_dp_buffer_len", None) is not None


@lru_cache(maxsize=64)
def marked(counts: tuple[int, ...], slots: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Which rows are tokens, [sum of slots] bool: of each rank's slot the first `count`. Not to be
    written to."""
    pinned = device.type == "cuda"
    real = torch.zeros(sum(slots), dtype=torch.bool, pin_memory=pinned)
    start = 0
    for count, slot in zip(counts, slots, strict=True):
        real[start : start + count] = True
        start += slot
    return real.to(device, non_blocking=pinned)
