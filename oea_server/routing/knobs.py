"""A policy as numbers on the device: what a captured CUDA graph reads at every replay."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import get_type_hints

import numpy as np
import torch

from oea_server.routing.policy import Numbers, Policy, Pool, Room

TABLE_BATCHES = 1024
"""Steps of more tokens use the numbers of this size (tables on the device must end somewhere)."""

OF_ALL_BATCHES = ("kind", "budget", "draw", "seed")
"""`draw` is 1 where experts are drawn at random."""
INTEGERS = (
    *(name for name, kind in get_type_hints(Numbers).items() if kind is int),
    *OF_ALL_BATCHES,
)
FLOATS = tuple(name for name, kind in get_type_hints(Numbers).items() if kind is float)
FIELDS = (*INTEGERS, *FLOATS)
"""A row of the table, int32 each; floats by their bits."""


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
        self.table = torch.zeros(
            len(layers), TABLE_BATCHES + 1, len(FIELDS), dtype=torch.int32, device=device
        )
        """[layers, batch, FIELDS]."""
        self.pool: Pool = "union"
        """What the steps may load, as the host knows it: on one rank a launch holds to no budget
        unless told of it."""
        self.write(Policy.vanilla())

    def write(self, policy: Policy) -> None:
        """Route by `policy` from the next step on.

        Raises:
            ValueError: a knob is out of bounds for a layer; nothing was written.
        """
        for k in set(self._k.values()):
            policy.check(k=k, num_experts=self.num_experts)
        self.pool = policy.pool
        self.table.copy_(
            torch.stack([_rows(policy, layer, k, self.num_experts) for layer, k in self._k.items()])
        )

    def at(self, layer: int, requests: torch.Tensor) -> tuple[Numbers, Room]:
        """The numbers for a step of so many requests, as 0-d tensors: to compare with, not to
        read."""
        table = self.table[self.row[layer]]
        at = requests.clamp(0, TABLE_BATCHES).long()
        # not table[...]: torch reads an index of no dimensions on the host, which no capture
        # survives
        row = table.index_select(0, at.view(1))[0]
        named = dict(zip(FIELDS, row.unbind(), strict=True)) | dict(
            zip(FLOATS, row[len(INTEGERS) :].view(torch.float32).unbind(), strict=True)
        )
        numbers = Numbers(*(named[field] for field in Numbers._fields))  # type: ignore[arg-type]
        return numbers, Room(named["kind"], named["budget"])  # type: ignore[arg-type]

    def draw_at(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Whether experts are drawn at random, and the seed; 0-d."""
        row = self.table[self.row[layer], 0].long()
        return row[FIELDS.index("draw")] > 0, row[FIELDS.index("seed")]


@cache
def knobs_of(policy: Policy, layer: int, k: int, num_experts: int, device: torch.device) -> Knobs:
    """One policy's knobs for one layer, made once and never freed: a captured graph reads them. 44
    KiB."""
    knobs = Knobs({layer: k}, num_experts, device)
    knobs.write(policy)
    return knobs


def _rows(policy: Policy, layer: int, k: int, num_experts: int) -> torch.Tensor:
    return _table(policy, layer if policy.is_own(layer) else -1, k, num_experts)


@lru_cache(maxsize=1024)
def _table(policy: Policy, layer: int, k: int, num_experts: int) -> torch.Tensor:
    # layers that share a schedule share this: 94 layers of 1025 batch sizes would take a second
    rows = [
        policy.numbers(batch, layer, k=k, num_experts=num_experts)
        for batch in range(TABLE_BATCHES + 1)
    ]
    room, seed = policy.room, (policy.seed & 0xFFFFFFFF) - ((policy.seed & 0x80000000) << 1)
    same = {
        "kind": room.kind,
        "budget": room.budget,
        "draw": int(policy.name == "random"),
        "seed": seed,
    }
    table = np.empty((len(rows), len(FIELDS)), dtype=np.int32)
    for place, field in enumerate(FIELDS):
        kind = np.float32 if field in FLOATS else np.int32
        column = (
            [getattr(row, field) for row in rows]
            if field in Numbers._fields
            else [same[field]] * len(rows)
        )
        table[:, place] = np.array(column, dtype=kind).view(np.int32)
    return torch.from_numpy(table)
