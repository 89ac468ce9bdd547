"""What the steps woke, counted on the device inside the step and read outside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Tally:
    """Histograms of experts woken, one observation per MoE layer and counted decode step.

    The counters only grow and are never reset, so a reader that races a writer sees a number that
    was true a moment ago.

    Args:
        layers: the layer ids to count.
        num_experts: experts whose weights a rank group holds (replicas included).
        ranks: expert-parallel ranks, each holding an equal, contiguous share of them.
        device: where the routing happens.
    """

    def __init__(self, layers: Sequence[int], num_experts: int, ranks: int, device: torch.device) -> None:
        if num_experts % ranks:
            raise ValueError(f"{num_experts} experts do not divide over {ranks} ranks")
        self.num_experts = num_experts
        self.ranks = ranks
        self._row = {layer: row for row, layer in enumerate(layers)}
        shape = (len(layers), num_experts + 1)
        self.unique = torch.zeros(shape, dtype=torch.int64, device=device)
        """[layers, N + 1]: steps in which a layer woke exactly so many experts."""
        self.busiest = torch.zeros(shape, dtype=torch.int64, device=device)
        """[layers, N + 1]: the same for the rank that woke most."""
        self.counting = torch.ones((), dtype=torch.int64, device=device)
        """0 while steps are not to be counted (warm-up, capture, health checks)."""

    def add(self, layer: int, ids: torch.Tensor, num_real: int | torch.Tensor | None) -> None:
        """Count one layer's step. ids [B, k], physical expert ids; -1 reads nothing. No host sync."""
        if num_real is not None:
            real = torch.arange(len(ids), device=ids.device) < num_real
            ids = torch.where(real[:, None], ids, -1)
        spare = self.num_experts  # a last column that takes what reads nothing
        where = torch.where(ids < 0, spare, ids).long().flatten()
        awake = torch.zeros(spare + 1, dtype=torch.int64, device=ids.device).index_fill_(0, where, 1)[:spare]
        row = self._row[layer]
        self.unique[row].index_add_(0, awake.sum().view(1), self.counting.view(1))
        if self.ranks > 1:
            busiest = awake.view(self.ranks, -1).sum(dim=1).max()
            self.busiest[row].index_add_(0, busiest.view(1), self.counting.view(1))
