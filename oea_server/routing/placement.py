"""Where a layer's experts lie: which rank reads which weights."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch


class Placement(NamedTuple):
    """One layer's experts on its expert-parallel ranks, as SGLang keeps them
    (`ExpertLocationMetadata`).

    Args:
        ranks: R. Rank r holds the physical experts r * slots … (r + 1) * slots - 1.
        slots: physical experts of a rank.
        physical: [N, X] integers: the physical experts that hold each expert's weights, the first
            always there, -1 where there are no more. Read at every step, so what changes it in
            place is followed.
        home: [N] int32, written by each routing: the one of them that the step reads.
    """

    ranks: int
    slots: int
    physical: torch.Tensor
    home: torch.Tensor

    @property
    def spare(self) -> int:
        """Physical experts beyond one each: so many experts at most have a choice."""
        return self.ranks * self.slots - len(self.physical) if self.physical.shape[1] > 1 else 0


@cache
def contiguous(num_experts: int, ranks: int, device: torch.device) -> Placement:
    """Equal, contiguous shares: what SGLang does unless told otherwise. Never freed: captured
    graphs read it.

    Raises:
        ValueError: the experts do not divide over the ranks.
    """
    if ranks < 1 or num_experts % ranks:
        raise ValueError(f"ranks={ranks}: {num_experts} experts do not divide over them")
    # whoever asks first: those who ask later may write to it outside that mode
    with torch.inference_mode(False):
        physical = torch.arange(num_experts, dtype=torch.int32, device=device)
        return Placement(ranks, num_experts // ranks, physical[:, None], physical.clone())
