"""From sequences to decode steps and back: step (g, t) is the t-th token of the B sequences of
group g."""

from __future__ import annotations

import torch


def to_steps(tokens: torch.Tensor, batch: int) -> torch.Tensor:
    """[S, L, X] of S = G·B sequences -> [G, L, B, X]: the batch of each step is the last but one
    dimension."""
    groups: torch.Tensor = tokens.unflatten(0, (-1, batch))
    return groups.transpose(1, 2)


def to_sequences(steps: torch.Tensor) -> torch.Tensor:
    """[G, L, B, X] -> [S, L, X]."""
    return steps.transpose(1, 2).flatten(0, 1)
