"""A layer's second half: experts behind a router, or one SwiGLU for all tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from oea_server.lab.demo.training.experts import Experts


class Used(NamedTuple):
    """What one router did.

    Args:
        balance: 0-d; Hugging Face's load-balancing loss, k where all experts are equally wanted.
        share: [N]; each expert's share of the tokens; the sum is k.
    """

    balance: torch.Tensor
    share: torch.Tensor


class Dense(nn.Module):
    """One SwiGLU for all tokens."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(hidden, 2 * inner, bias=False)
        self.down = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        out: torch.Tensor = self.down(F.silu(gate) * up)
        return out


class MixtureOfExperts(nn.Module):
    """Router and experts; the weights of a token's top k are renormalised.

    Qwen3-MoE's router takes the best of a softmax. GLM-4.5's scores are sigmoids, to which a bias
    is added to choose and not to weigh; it learns from loads alone (`even`). Beside its experts is
    one that every token takes."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        hidden, inner = config["hidden_size"], config["moe_intermediate_size"]
        self.biased = config["model_type"] == "glm4_moe"
        number = config["n_routed_experts" if self.biased else "num_experts"]
        self.k = config["num_experts_per_tok"]
        self.scale = config.get("routed_scaling_factor", 1.0)
        self.gate = nn.Linear(hidden, number, bias=False)
        self.gate_up = nn.Parameter(torch.empty(number, 2 * inner, hidden))
        self.down = nn.Parameter(torch.empty(number, hidden, inner))
        shared = config.get("n_shared_experts", 0)
        self.shared_experts = Dense(hidden, shared * inner) if shared else None
        if self.biased:
            self.gate.register_buffer("e_score_correction_bias", torch.zeros(number))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Used]:
        tokens = x.flatten(0, -2)
        wanted, weights, ids = self._choose(self.gate(tokens).float())
        order = ids.flatten().argsort()
        counts = ids.flatten().bincount(minlength=wanted.shape[1])
        token = order // self.k
        out = Experts.apply(tokens.index_select(0, token), self.gate_up, self.down, counts.tolist())
        weighed = out * weights.flatten()[order, None].to(out.dtype)
        mixed = torch.zeros_like(tokens).index_add(0, token, weighed).view_as(x)
        share = counts / len(tokens)
        used = Used((share * wanted.mean(dim=0)).sum() * len(share), share)
        return mixed if self.shared_experts is None else mixed + self.shared_experts(x), used

    @torch.no_grad()
    def even(self, share: torch.Tensor, rate: float) -> None:
        """Move each expert's bias by `rate` towards an even load (DeepSeek-V3, GLM-4.5); no loss is
        needed for it."""
        if self.biased:
            self._bias().add_(torch.sign(share.mean() - share), alpha=rate)

    def _choose(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """How much each expert is wanted [T, N], rows of sum 1; weights and ids [T, k]."""
        if not self.biased:
            scores = logits.softmax(dim=-1)
            weights, ids = scores.topk(self.k, dim=-1)
            return scores, weights / weights.sum(dim=-1, keepdim=True), ids
        scores = logits.sigmoid()
        ids = (scores.detach() + self._bias()).topk(self.k, dim=-1).indices
        weights = scores.gather(1, ids)
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20) * self.scale
        return scores / scores.sum(dim=-1, keepdim=True), weights, ids

    def _bias(self) -> torch.Tensor:
        return self.gate.get_buffer("e_score_correction_bias")
