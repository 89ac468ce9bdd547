"""One arm on some sequences: what it costs them, token by token, and what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from oea_server.lab.quality.arms import Arm
from oea_server.lab.quality.routed import Routers, routed
from oea_server.lab.quality.rules import Step
from oea_server.lab.quality.steps import to_sequences, to_steps

TOKENS_AT_ONCE = 4096
"""Rows of logits that are held at a time: a vocabulary may have 150,000 entries."""


class Measured(NamedTuple):
    """Means, by sequence [S] where not said otherwise.

    Args:
        loss: mean cross-entropy, nats per token.
        kl: mean KL divergence of the next token's distribution from vanilla's to this one, nats.
        agreement: share of positions with vanilla's most likely token.
        kept: mean router mass of the chosen experts over that of vanilla's.
        unique: T, unique experts read per layer and step; mean by group of B sequences, [S / B].
        busiest: the most of them on one rank, by number of ranks in which the experts are split
            equally; as `unique`.
        routing: what routed: host, fused, eager, or rules (`serving.Routed.by`).
    """

    loss: list[float]
    kl: list[float]
    agreement: list[float]
    kept: list[float]
    unique: list[float]
    busiest: dict[int, list[float]]
    routing: str


class Counter:
    """Routes as an arm says, and counts what that reads."""

    def __init__(self, arm: Arm, found: Routers, batch: int, ranks: Sequence[int]) -> None:
        self._choose, self._found, self._batch = arm.chooser(found), found, batch
        self.unique: list[torch.Tensor] = []
        self.busiest: dict[int, list[torch.Tensor]] = {each: [] for each in ranks}
        self.kept: list[torch.Tensor] = []
        self.by: set[str] = set()

    def __call__(self, logits: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        steps = to_steps(logits, self._batch)
        routing = self._choose(steps, layer)
        self.by.add(routing.by)
        ids, used = routing.ids.long(), routing.weights > 0
        read = torch.zeros(
            *ids.shape[:2], logits.shape[-1] + 1, dtype=torch.bool, device=logits.device
        )
        read = read.scatter(-1, torch.where(used, ids, logits.shape[-1]).flatten(-2), True)[
            ..., :-1
        ]
        self.unique.append(read.sum(dim=-1).float().mean(dim=1))
        for ranks, kept in self.busiest.items():
            kept.append(
                read.unflatten(-1, (ranks, -1)).sum(dim=-1).amax(dim=-1).float().mean(dim=1)
            )
        step = Step.of(steps, self._found.each[layer])
        mass = torch.where(used, step.scores.gather(-1, ids), 0.0).sum(dim=-1, keepdim=True)
        self.kept.append(to_sequences(mass / step.own)[..., 0].mean(dim=1))
        return to_sequences(routing.weights), to_sequences(ids)


class Judge:
    """A model, and what it says under vanilla of one chunk of sequences."""

    def __init__(self, model: Any, found: Routers, ids: torch.Tensor) -> None:
        self.model, self.found, self.ids = model, found, ids
        with torch.inference_mode():
            self.vanilla = self._states()

    def measure(self, arm: Arm, batch: int, ranks: Sequence[int] = ()) -> Measured:
        """Run one arm at one batch size, which has to divide the number of sequences."""
        counter = Counter(arm, self.found, batch, ranks)
        with torch.inference_mode(), routed(self.found, len(self.ids), counter):
            states = self._states()
        with torch.inference_mode():
            loss, kl, agreement = self._compare(states)
        return Measured(
            loss,
            kl,
            agreement,
            torch.stack(counter.kept).mean(dim=0).tolist(),
            torch.stack(counter.unique).mean(dim=0).tolist(),
            {
                each: torch.stack(kept).mean(dim=0).tolist()
                for each, kept in counter.busiest.items()
            },
            ", ".join(sorted(counter.by)),
        )

    def _states(self) -> torch.Tensor:
        """The last layer's output [S, L, H]: the logits of all sequences would not fit."""
        states: torch.Tensor = self.model.base_model(
            input_ids=self.ids[:, :-1], use_cache=False
        ).last_hidden_state
        return states

    def _compare(self, states: torch.Tensor) -> tuple[list[float], list[float], list[float]]:
        sequences, length = self.ids.shape[0], self.ids.shape[1] - 1
        found = []
        parts = (each.flatten(0, 1).split(TOKENS_AT_ONCE) for each in (states, self.vanilla))
        head = self.model.get_output_embeddings()
        for state, vanilla, target in zip(
            *parts, self.ids[:, 1:].flatten().split(TOKENS_AT_ONCE), strict=True
        ):
            mine, theirs = (head(each).float().log_softmax(dim=-1) for each in (state, vanilla))
            found.append(
                torch.stack(
                    [
                        F.nll_loss(mine, target, reduction="none"),
                        F.kl_div(mine, theirs, reduction="none", log_target=True).sum(dim=-1),
                        (mine.argmax(dim=-1) == theirs.argmax(dim=-1)).float(),
                    ]
                )
            )
        rows = torch.cat(found, dim=1).view(3, sequences, length).double().mean(dim=-1)
        loss, kl, agreement = rows.tolist()
        return loss, kl, agreement
