"""What a server's decode steps have routed, as the tests' plug-in kept it, recounted in plain
words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.servers import LAYERS, K


@dataclass
class Recount:
    """Of all steps in a folder."""

    rows: Counter[tuple[int, ...]] = field(default_factory=Counter)
    """The experts of each token in each layer, in order of layers."""
    layers: int = 0
    """Of all steps; a pipeline stage has some of each step's."""
    tokens: int = 0
    """In all layers."""
    unique: int = 0
    assignments: int = 0


def recount(folder: Path, k0: int) -> Recount:
    """Check that each row of each step holds its best experts of those that rows are guaranteed,
    and add up.

    The files are taken away.
    """
    found = Recount()
    for file in sorted(folder.iterdir()):
        step = torch.load(file)
        file.unlink()
        for logits, ids, weights in step["layers"]:
            held = experts(logits, ids, weights, step["batch"], k0)
            found.layers += 1
            found.unique += len(set().union(*held))
            found.tokens += len(held)
            found.assignments += sum(map(len, held))
            found.rows.update(held)
    return found


def experts(
    logits: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, rows: int, k0: int
) -> list[tuple[int, ...]]:
    """Those of each token of a step in one layer, sorted; what pads a step holds none."""
    pool = {int(expert) for row in logits[:rows] for expert in row.topk(k0).indices}
    held = [
        sorted(pool, key=lambda expert: (-float(row[expert]), expert))[:K] for row in logits[:rows]
    ]
    for row, mine in enumerate(held):
        assert ids[row][weights[row] > 0].tolist() == mine
    assert not weights[rows:].any()
    return [tuple(sorted(mine)) for mine in held]


def replayed(replays: Iterable[np.ndarray]) -> Counter[tuple[int, ...]]:
    """The same of SGLang's routing replay, [tokens, layers, k] each."""
    return Counter(
        tuple(sorted(set(row))) for replay in replays for row in replay.reshape(-1, K).tolist()
    )


def agrees(gained: dict[str, float], found: Recount) -> bool:
    """Whether a server's metrics gained what a recount comes to; asserts, so that a test says which
    did not."""
    said: dict[str, Any] = {
        "oea_decode_batch_size_count": found.layers / LAYERS,
        "oea_decode_batch_size_sum": found.tokens / LAYERS,
        "oea_unique_experts_count": found.layers,
        "oea_routed_tokens_total": found.tokens,
        "oea_assignments_total": found.assignments,
        "oea_unique_experts_sum": found.unique,
    }
    assert {name: gained[name] for name in said} == said
    return True
