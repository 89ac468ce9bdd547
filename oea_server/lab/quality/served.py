"""The measure of `quality.measure` on a live server: its own decode steps, batched as it batches,
made to say held-out text."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from oea_server.client.ask import ask
from oea_server.client.server import Server
from oea_server.engine.forced import forced

FLAGS = ("--enable-custom-logit-processor", "--dtype", "float32", "--max-total-tokens", "65536")
TIMEOUT = 600.0


class Served(NamedTuple):
    """What a policy did to a live server's sequences.

    Args:
        loss: mean cross-entropy of each sequence, nats per token.
        unique: T, by the server's own count, mean over layers and decode steps.
        batch: tokens in a step, likewise.
        kept: router mass kept, likewise.
    """

    loss: list[float]
    unique: float
    batch: float
    kept: float


def measure(server: Server, ids: torch.Tensor, batch: int, knobs: dict[str, object]) -> Served:
    """Let a server say sequences [S, L + 1], `batch` at once, under these knobs."""
    server.steer(**knobs)
    before = server.settled_metrics()
    with tempfile.TemporaryDirectory() as folder:
        losses: list[float] = []
        for group in ids.split(batch):
            losses += _say(server.url, group, Path(folder))
    after = server.settled_metrics()

    def mean(top: str, bottom: str) -> float:
        return (after[top] - before.get(top, 0.0)) / (after[bottom] - before.get(bottom, 0.0))

    return Served(
        losses,
        mean("oea_unique_experts_sum", "oea_unique_experts_count"),
        mean("oea_decode_batch_size_sum", "oea_decode_batch_size_count"),
        mean("oea_kept_router_mass_total", "oea_routed_tokens_total"),
    )


def _say(url: str, group: torch.Tensor, folder: Path) -> list[float]:
    """All sequences of a group at once; the mean loss of each over what was decoded: its first two
    tokens are not."""

    processor = forced()

    def one(number: int, tokens: Sequence[int]) -> float:
        kept = folder / f"{number}.json"
        body = {
            "input_ids": tokens[:1],
            "sampling_params": {
                "max_new_tokens": len(tokens) - 1,
                "ignore_eos": True,
                "temperature": 0,
                "custom_params": {"tokens": tokens[1:], "file": str(kept)},
            },
            "custom_logit_processor": processor,
        }
        ask("POST", f"{url}/generate", json=body, timeout=TIMEOUT).raise_for_status()
        losses: list[float] = json.loads(kept.read_text())
        kept.unlink()
        return sum(losses[1:]) / len(losses[1:])  # the first is prefill's

    with ThreadPoolExecutor(len(group)) as pool:
        return list(pool.map(one, range(len(group)), group.tolist()))
