"""Wishes of ranks with batches of their own (DP attention), whose rows one pool is for: all ranks
know all of them.

Before each step SGLang's ranks tell each other how many tokens they have, in a row of numbers each.
Here it has one number more: whether any request that the rank has wishes something. Only where some
rank's does they meet once again, over what each request of the step asks.

Seams: AFTER `MLPSyncBatchInfo._get_local_tensor`, `_get_fallback_tensor` and `all_gather`, and
AFTER `prepare_mlp_sync_batch_raw`, all of `sglang.srt.managers.scheduler_components.dp_attn`. The
step that follows is launched before the next of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from oea_server.engine import runtime, wishers
from oea_server.engine.step import Step

somebody = False
"""Whether a request of any rank wishes something, as of the last time that ranks told each
other."""
asked: tuple[tuple[int, ...], ...] = ()
"""What each request of each rank asks in the step that comes next (`wishers.of`); empty where none
does."""


def after_get_local_tensor(result: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The rank's row, and behind the row whether any of the rank's requests wishes something."""
    return torch.cat([result, result.new_tensor([int(bool(wishers.asking))])])


def after_get_fallback_tensor(result: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The row of a rank that is not there, which wishes nothing."""
    return torch.cat([result, result.new_zeros(1)])


def after_all_gather(result: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Read whether some rank's requests wish something."""
    global somebody
    rows = getattr(self, "tp0_info_cpu", None)
    if rows is None:  # 0.5.17
        rows = self.tp0_info
    somebody = bool(rows[:, -1].max())
    return result


def after_prepare(result: Any, *args: Any, **kwargs: Any) -> Any:
    """Meet over what the requests of the next step ask, if any may; all ranks do, or none."""
    global somebody, asked
    meet, somebody, asked = somebody, False, ()
    now, batch = runtime.current, result
    # of a decode worker: what runs is inside it
    if batch is not None and batch.forward_mode.is_prebuilt():
        batch = batch.inner_idle_batch
    # each of these on all ranks alike
    if not meet or now is None or now.rows.ranks is None or not now.rows.ranks.together:
        return result
    if batch is None or batch.is_extend_in_batch:
        return result
    rids = [each.rid for each in batch.reqs] if batch.forward_mode.is_decode() else []
    mine = wishers.of(rids, as_it_is=now.steering.settings.wish_floor is not None)
    found = meeting(mine, [int(count) for count in batch.global_num_tokens])
    asked = found if any(map(any, found)) else ()
    return result


def of_step(step: Step, mine: Sequence[int], own: int) -> tuple[int, ...]:
    """What the requests of a step of all ranks ask, rank by rank; () if none does.

    Args:
        mine: what those of this rank ask, as its own batch has them.
        own: its place among the ranks.

    Raises:
        ValueError: that is not what the ranks have told each other.
    """
    counts = tuple(rows // step.per_request for rows in step.of_ranks)
    told = asked or tuple((0,) * count for count in counts)
    if tuple(map(len, told)) != counts or told[own] != (tuple(mine) or (0,) * counts[own]):
        of = ", ".join(map(str, counts))
        raise ValueError(
            f"a decode step of {of} requests on as many ranks, which have told each other of other"
            " wishes"
        )
    return tuple(each for rank in told for each in rank) if asked else ()


def meeting(mine: Sequence[int], counts: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """What all ranks' requests ask, by rank.

    Args:
        mine: what this rank's ask, one number for each, or nothing.
        counts: the requests of each rank.
    """
    from sglang.srt.runtime_context import get_parallel

    parallel = get_parallel()
    group = parallel.tp_group.cpu_group
    told = torch.zeros(max(counts), dtype=torch.int64)
    told[: len(mine)] = torch.tensor(mine, dtype=torch.int64)
    heard = [torch.zeros_like(told) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(heard, told, group=group)
    of_ranks = heard[:: len(heard) // len(counts)]  # those of one batch lie side by side
    return tuple(tuple(each[:count].tolist()) for each, count in zip(of_ranks, counts, strict=True))
