"""Steps of several ranks: DP attention without an all-to-all backend gathers all ranks' rows before a layer's router.

Every rank then sees every row, and so chooses the same experts from one pool over all of them, without asking anybody.
What must be the same on all ranks comes from what SGLang has told all of them alike. Read of SGLang:
`ForwardBatch.global_num_tokens_cpu`, `is_extend_in_batch` and `global_dp_buffer_len`, and
`sglang.srt.layers.moe.utils.is_moe_input_scattered_across_dp_ranks`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch

from oea_server.engine.step import Step


class Gathering(NamedTuple):
    """Whose rows come together before a router."""

    ranks: int
    """Attention-DP ranks; each has a batch of its own."""
    own: int
    """Which of them this process belongs to."""


def gathering() -> Gathering | None:
    """How the rows of this server's ranks come together; None where a router sees its own rank's alone."""
    if not torch.distributed.is_initialized():
        return None
    from sglang.srt.layers.moe.utils import is_moe_input_scattered_across_dp_ranks
    from sglang.srt.runtime_context import get_parallel

    parallel = get_parallel()
    if parallel.attn_dp_size == 1 or is_moe_input_scattered_across_dp_ranks():
        return None
    return Gathering(parallel.attn_dp_size, parallel.attn_dp_rank)


def frozen() -> str | None:
    """Why the settings cannot change while the server runs, None if they can."""
    if not torch.distributed.is_initialized():
        return None
    from sglang.srt.runtime_context import get_parallel

    parallel = get_parallel()
    if parallel.attn_dp_size == 1 or not parallel.enable_dp_attention_local_control_broadcast:
        return None
    return (
        "--enable-dp-attention-local-control-broadcast: a request for a change reaches each rank between other steps, "
        "so that for some steps ranks would route differently; start anew with other knobs"
    )


def counts_of(forward_batch: Any) -> tuple[int, ...]:
    """The tokens of each rank, in order of ranks, as long as the batch is not padded; empty if nobody has said."""
    return tuple(int(count) for count in getattr(forward_batch, "global_num_tokens_cpu", None) or ())


def extends(forward_batch: Any) -> bool:
    """Whether any rank prefills in this step: then it is no decode step, on none of them."""
    return bool(getattr(forward_batch, "is_extend_in_batch", False))


def step_of(forward_batch: Any, *, counted: bool) -> Step | None:
    """The decode step that a batch of this rank is a part of, an idle rank's too; None if it is part of none.

    The same on all ranks, but for `counted`.
    """
    counts = counts_of(forward_batch)
    if extends(forward_batch) or not sum(counts) or not forward_batch.forward_mode.is_decode_or_idle():
        return None
    return Step(sum(counts), counted, of_ranks=counts)


def speaks(here: Gathering, forward_batch: Any) -> bool:
    """Whether this rank counts a step for all: the first that has tokens in it does, and it knows whose they are."""
    counts = counts_of(forward_batch)
    return next((rank for rank, count in enumerate(counts) if count), None) == here.own


def problem_of(here: Gathering, forward_batch: Any) -> str | None:
    """Why nobody knows which rows of a step are tokens; None if it is known, or the step is not routed."""
    if extends(forward_batch):
        return None
    counts, requests = counts_of(forward_batch), int(forward_batch.batch_size)
    if len(counts) == here.ranks and (forward_batch.forward_mode.is_idle() or counts[here.own] == requests):
        return None
    said = ", ".join(map(str, counts)) or "none"
    return (
        f"a decode step of {requests} requests on rank {here.own} of {here.ranks}, whose rows come together, is "
        f"declared to have these tokens: {said}"
    )


def slots_of(step: Step, forward_batch: Any, captured: int) -> tuple[int, ...]:
    """How many rows each rank has in what a router gets, its tokens first, then its padding.

    Args:
        captured: rows of one rank in the graph that the step replays; those of its longest rank where there is none.
    """
    if step.capturing:
        return step.of_ranks
    return counts_of(forward_batch) if is_padded(forward_batch) else (captured,) * len(step.of_ranks)


def is_padded(forward_batch: Any) -> bool:
    """Whether SGLang has padded a batch by now, in place, to run it without a graph; then its counts are the slots'."""
    return getattr(forward_batch, "global_dp_buffer_len", None) is not None


@lru_cache(maxsize=64)
def marked(counts: tuple[int, ...], slots: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Which rows are tokens, [sum of slots] bool: of each rank's slot the first `count`. Not to be written to."""
    pinned = device.type == "cuda"
    real = torch.zeros(sum(slots), dtype=torch.bool, pin_memory=pinned)
    start = 0
    for count, slot in zip(counts, slots, strict=True):
        real[start : start + count] = True
        start += slot
    return real.to(device, non_blocking=pinned)
