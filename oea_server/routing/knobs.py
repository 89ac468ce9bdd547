"""A policy as numbers on the device: what a captured CUDA graph reads at every replay."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache

import torch

from oea_server.routing.policy import Numbers, Policy

TABLE_BATCHES = 1024
"""Steps of more tokens use the numbers of this size (tables on the device must end somewhere)."""


class Knobs:
    """Every live knob of the layers, in device memory.

    `write` them between two steps, on the stream that runs the steps; whatever reads them
    (`fused.route`, `eager.route`, graphs captured from these) follows from the next step on.

    Args:
        layers: layer id -> the router's k.
        num_experts: experts N of each layer.
        device: where the routing happens.
    """

    def __init__(self, layers: Mapping[int, int], num_experts: int, device: torch.device) -> None:
        self.row = {layer: row for row, layer in enumerate(layers)}
        self.num_experts = num_experts
        self._k = dict(layers)
        self.numbers = torch.zeros(len(layers), TABLE_BATCHES + 1, 3, dtype=torch.int32, device=device)
        """[layers, batch, (floor, limit, reach)]."""
        self.p = torch.ones(1, dtype=torch.float64, device=device)
        self.draw = torch.zeros(2, dtype=torch.int64, device=device)
        """(1 if experts are drawn at random, the seed)."""
        self.room = torch.zeros(2, dtype=torch.int32, device=device)
        """`Policy.room`."""
        self.write(Policy.vanilla())

    def write(self, policy: Policy) -> None:
        """Route by `policy` from the next step on.

        Raises:
            ValueError: a knob is out of bounds for a layer; nothing was written.
        """
        for k in set(self._k.values()):
            policy.check(k=k, num_experts=self.num_experts)
        self.numbers.copy_(torch.stack([_rows(policy, layer, k, self.num_experts) for layer, k in self._k.items()]))
        self.p.fill_(policy.p)
        self.room.copy_(torch.tensor(policy.room, device="cpu"))
        self.draw.copy_(torch.tensor([policy.name == "random", policy.seed], device="cpu"))

    def at(self, layer: int, num_real: int | torch.Tensor) -> Numbers:
        """The numbers for a step of `num_real` tokens, as 0-d tensors: to compare with, not to read."""
        table = self.numbers[self.row[layer]]
        if isinstance(num_real, int):
            return Numbers(*table[min(max(num_real, 0), TABLE_BATCHES)].unbind())  # type: ignore[arg-type]
        # not table[…]: torch reads an index of no dimensions on the host, which no capture survives
        row = table.index_select(0, num_real.clamp(0, TABLE_BATCHES).long().view(1))[0]
        return Numbers(*row.unbind())  # type: ignore[arg-type]


@cache
def knobs_of(policy: Policy, layer: int, k: int, num_experts: int, device: torch.device) -> Knobs:
    """One policy's knobs for one layer, made once and never freed: a captured graph reads them. 12 KiB."""
    knobs = Knobs({layer: k}, num_experts, device)
    knobs.write(policy)
    return knobs


def _rows(policy: Policy, layer: int, k: int, num_experts: int) -> torch.Tensor:
    own = policy.k0 is not None and layer in policy.k0.by_layer
    return _table(policy, layer if own else -1, k, num_experts)


@lru_cache(maxsize=1024)
def _table(policy: Policy, layer: int, k: int, num_experts: int) -> torch.Tensor:
    # layers that share a schedule share this: 94 layers of 1025 batch sizes would take a second
    rows = [policy.numbers(batch, layer, k=k, num_experts=num_experts) for batch in range(TABLE_BATCHES + 1)]
    # on the host whatever torch's default device is: SGLang builds models under another one
    return torch.tensor(rows, dtype=torch.int32, device="cpu")
