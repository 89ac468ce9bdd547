"""Train, resumably: step i of a seed is the same step whenever and however often the run was
stopped before it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from oea_server.lab.demo.training.network import Network, Routed
from oea_server.lab.demo.training.tokens import Data

NOTE_EVERY, SAVE_EVERY, LOOK_EVERY = 20, 50, 500
"""Steps between two points of the curve, two checkpoints, two looks at held-out text."""
LOOK = 128
"""Windows of held-out text per look, spread over it: always the same ones."""


class Recipe(NamedTuple):
    """How a model is trained.

    Args:
        rate: of learning: reached within `warm_up` steps, then level, then a line down to a tenth
            over the last `fall` of the steps, so that a run can be made longer until then.
        balance: the weight of Hugging Face's load-balancing loss.
        bias: what a step moves a selection bias by, where the router has one; falls to nothing as
            the rate of learning falls.
        ahead: the weight of the loss of the token after the next, where the network looks ahead,
            before the fall and at its end.
    """

    steps: int
    batch: int = 16
    length: int = 256
    rate: float = 3e-3
    warm_up: int = 100
    fall: float = 0.35
    decay: float = 0.05
    balance: float = 0.001
    bias: float = 0.001
    ahead: tuple[float, float] = (0.3, 0.1)
    clip: float = 1.0
    seed: int = 20251102
    dense: bool = False

    def rate_at(self, step: int) -> float:
        """The learning rate of a step."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        return self.rate * max(self.left_at(step), 0.1)

    def left_at(self, step: int) -> float:
        """1 before the fall, 0 at its end."""
        return min((self.steps - step) / max(self.fall * self.steps, 1), 1.0)

    def ahead_at(self, step: int) -> float:
        """The weight of a step's loss of the token after the next."""
        before, end = self.ahead
        return end + (before - end) * self.left_at(step)


class Losses(NamedTuple):
    """Of some windows, nats per token.

    Args:
        loss: of the next token.
        ahead: of the token after the next; 0 where the network does not look ahead.
        agreed: how often the most likely such token is the model's own, which is what a drafted
            token is accepted for.
    """

    loss: torch.Tensor
    ahead: torch.Tensor
    agreed: torch.Tensor
    routed: Routed


def train(config: Mapping[str, Any], data: Data, recipe: Recipe, work: Path) -> Network:
    """Train to the recipe's last step, from the checkpoint in `work` if there is one."""
    torch.manual_seed(recipe.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = Network(config, recipe.dense).to(device)
    optimizer = torch.optim.AdamW(
        groups(network, recipe.decay), lr=recipe.rate, betas=(0.9, 0.95), fused=True
    )
    name = "dense" if recipe.dense else "moe"
    checkpoint, curve = work / f"{name}.pt", work / f"{name}-curve.jsonl"
    first = _resume(checkpoint, curve, network, optimizer, device)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress, curve.open("a") as kept:
        task = progress.add_task("steps", total=recipe.steps, completed=first)
        start = time.perf_counter()
        for step in range(first, recipe.steps):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate_at(step)
            ids = batch(data.training, recipe, step).to(device)
            found = losses(network, ids)
            loss, routed = found.loss, found.routed
            whole = loss + recipe.balance * routed.balance if recipe.balance else loss
            (whole + recipe.ahead_at(step) * found.ahead).backward()
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
            optimizer.step()
            optimizer.zero_grad()
            for router, share in zip(network.routers, routed.share, strict=True):
                router.even(share, recipe.bias * recipe.left_at(step))
            done = step + 1
            if done % NOTE_EVERY == 0 or done == recipe.steps:
                point = {
                    "step": done,
                    "loss": loss.item(),
                    "balance": routed.balance.item(),
                    "norm": norm.item(),
                }
                point |= {"ahead": found.ahead.item()} if network.ahead else {}
                point["seconds"] = (time.perf_counter() - start) / NOTE_EVERY
                start = time.perf_counter()
                if done % LOOK_EVERY == 0 or done == recipe.steps:
                    point |= look(network, data.held_out, recipe.length)
                    start = time.perf_counter()
                kept.write(json.dumps(point) + "\n")
                kept.flush()
                progress.update(task, completed=done, description=f"loss {point['loss']:.3f}")
            if done % SAVE_EVERY == 0 or done == recipe.steps:
                _save(checkpoint, network, optimizer, done)
    return network


def losses(network: Network, ids: torch.Tensor) -> Losses:
    """Cross-entropy of windows [B, L + 1], and what the routers did."""
    if network.ahead is None:
        logits, routed = network(ids[:, :-1])
        return Losses(cross_entropy(logits, ids[:, 1:]), torch.zeros(()), torch.zeros(()), routed)
    logits, further, routed = network.twice(ids[:, :-1])
    agreed = (
        (further.detach().argmax(dim=-1) == logits[:, 1:].detach().argmax(dim=-1)).float().mean()
    )
    return Losses(
        cross_entropy(logits, ids[:, 1:]), cross_entropy(further, ids[:, 2:]), agreed, routed
    )


def cross_entropy(logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, nats per token, of logits [B, L, V] and the tokens that came [B, L]."""
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), right.flatten())


def batch(tokens: NDArray[np.uint16], recipe: Recipe, step: int) -> torch.Tensor:
    """The windows of one step, [B, L + 1] int64: each epoch goes through all of them in an order of
    its own."""
    windows = (len(tokens) - 1) // recipe.length
    epoch, place = divmod(step * recipe.batch, windows - windows % recipe.batch)
    order = np.random.default_rng((recipe.seed, epoch)).permutation(windows)[
        place : place + recipe.batch
    ]
    offset = epoch * recipe.length // 3  # so that windows do not begin where they did before
    starts = np.minimum(
        order * recipe.length + offset % recipe.length, len(tokens) - recipe.length - 1
    )
    return torch.from_numpy(
        np.stack([tokens[at : at + recipe.length + 1] for at in starts]).astype(np.int64)
    )


@torch.no_grad()
def look(network: Network, tokens: NDArray[np.uint16], length: int) -> dict[str, float]:
    """Held-out cross-entropy, also of looking ahead, and how evenly experts are used in the least
    even layer. Evenness is entropy over that of even use, and the least used expert's share over an
    even one."""
    device = next(network.parameters()).device
    looked = [losses(network, ids.to(device)) for ids in windows(tokens, length)]
    used = torch.stack([each.routed.share for each in looked]).mean(dim=0)
    found = {"held_out": sum(each.loss.item() for each in looked) / len(looked)}
    if network.ahead:
        found["ahead_held_out"] = sum(each.ahead.item() for each in looked) / len(looked)
        found["agreed"] = sum(each.agreed.item() for each in looked) / len(looked)
    if len(used):
        part = used / used.sum(dim=1, keepdim=True)
        entropy = -(part * part.clamp_min(1e-12).log()).sum(dim=1) / math.log(part.shape[1])
        found |= {
            "evenness": entropy.min().item(),
            "least_used": (part.min() * part.shape[1]).item(),
        }
    return found


def windows(tokens: NDArray[np.uint16], length: int) -> Iterator[torch.Tensor]:
    """The `LOOK` windows of held-out text, [16, L + 1] int64 at a time."""
    every = max((len(tokens) - 1) // length // LOOK, 1) * length
    first = list(range(0, len(tokens) - length, every))[:LOOK]
    for at in range(0, len(first), 16):
        starts = first[at : at + 16]
        yield torch.from_numpy(
            np.stack([tokens[s : s + length + 1] for s in starts]).astype(np.int64)
        )


def groups(network: Network, decay: float) -> list[dict[str, Any]]:
    """Matrices decay, norms do not."""
    matrices = [each for each in network.parameters() if each.dim() > 1]
    return [
        {"params": matrices, "weight_decay": decay},
        {"params": [each for each in network.parameters() if each.dim() < 2], "weight_decay": 0.0},
    ]


def _save(path: Path, network: Network, optimizer: torch.optim.Optimizer, step: int) -> None:
    scratch = path.with_suffix(".part")
    torch.save(
        {"step": step, "network": network.state_dict(), "optimizer": optimizer.state_dict()},
        scratch,
    )
    scratch.rename(path)


def _resume(
    path: Path,
    curve: Path,
    network: Network,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> int:
    if not path.exists():
        curve.unlink(missing_ok=True)
        return 0
    kept = torch.load(path, map_location=device)
    network.load_state_dict(kept["network"])
    optimizer.load_state_dict(kept["optimizer"])
    points = [
        line for line in curve.read_text().splitlines() if json.loads(line)["step"] <= kept["step"]
    ]
    curve.write_text("".join(line + "\n" for line in points))
    return int(kept["step"])
