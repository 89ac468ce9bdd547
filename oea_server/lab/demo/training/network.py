"""Qwen3-MoE as it is trained here: the arithmetic of Hugging Face's `Qwen3MoeForCausalLM`, experts stacked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from oea_server.lab.demo.training.experts import Experts


class Routed(NamedTuple):
    """What the routers of one forward pass did, by layer.

    Args:
        balance: 0-d; Hugging Face's load-balancing loss, k where all experts are equally wanted.
        share: [L, N]; each expert's share of the layer's tokens; the rows sum to k.
    """

    balance: torch.Tensor
    share: torch.Tensor


class Attention(nn.Module):
    """Grouped queries, each head's queries and keys normalised, rotary positions, causal."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        hidden, self.head = config["hidden_size"], config["head_dim"]
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.q_proj = nn.Linear(hidden, heads * self.head, bias=False)
        self.k_proj = nn.Linear(hidden, kv_heads * self.head, bias=False)
        self.v_proj = nn.Linear(hidden, kv_heads * self.head, bias=False)
        self.o_proj = nn.Linear(heads * self.head, hidden, bias=False)
        self.q_norm = nn.RMSNorm(self.head, config["rms_norm_eps"])
        self.k_norm = nn.RMSNorm(self.head, config["rms_norm_eps"])

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        def heads(each: torch.Tensor) -> torch.Tensor:
            return each.view(*each.shape[:-1], -1, self.head)

        queries = rotate(self.q_norm(heads(self.q_proj(x))).transpose(1, 2), cos, sin)
        keys = rotate(self.k_norm(heads(self.k_proj(x))).transpose(1, 2), cos, sin)
        values = heads(self.v_proj(x)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=True)
        out: torch.Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return out


class MixtureOfExperts(nn.Module):
    """Router and experts; the weights of a token's top k are renormalised."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        hidden, inner, number = config["hidden_size"], config["moe_intermediate_size"], config["num_experts"]
        self.k = config["num_experts_per_tok"]
        self.gate = nn.Linear(hidden, number, bias=False)
        self.gate_up = nn.Parameter(torch.empty(number, 2 * inner, hidden))
        self.down = nn.Parameter(torch.empty(number, hidden, inner))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        tokens = x.flatten(0, -2)
        scores = self.gate(tokens).float().softmax(dim=-1)
        weights, ids = scores.topk(self.k, dim=-1)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        order = ids.flatten().argsort()
        counts = ids.flatten().bincount(minlength=scores.shape[1])
        token = order // self.k
        out = Experts.apply(tokens.index_select(0, token), self.gate_up, self.down, counts.tolist())
        weighed = out * weights.flatten()[order, None].to(out.dtype)
        mixed = torch.zeros_like(tokens).index_add(0, token, weighed)
        share = counts / len(tokens)
        return mixed.view_as(x), (share * scores.mean(dim=0)).sum() * len(share), share


class Dense(nn.Module):
    """The baseline: one SwiGLU as wide as the experts that a token takes, so with the same work per token."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        hidden, inner = config["hidden_size"], config["moe_intermediate_size"] * config["num_experts_per_tok"]
        self.gate_up = nn.Linear(hidden, 2 * inner, bias=False)
        self.down = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up), x.new_zeros(()), x.new_zeros(1)


class Layer(nn.Module):
    def __init__(self, config: Mapping[str, Any], dense: bool) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config["hidden_size"], config["rms_norm_eps"])
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config["hidden_size"], config["rms_norm_eps"])
        self.mlp: nn.Module = Dense(config) if dense else MixtureOfExperts(config)

    def forward(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The residual stream after this layer; its balance and shares, as `Routed` has them of all layers."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        mixed, balance, share = self.mlp(self.post_attention_layernorm(x))
        return x + mixed, balance, share


class Network(nn.Module):
    """The whole model.

    Args:
        config: a Hugging Face configuration. The output embedding is the input's: `export` writes it twice.
        dense: the baseline instead.
    """

    def __init__(self, config: Mapping[str, Any], dense: bool = False) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = nn.ModuleList(Layer(config, dense) for _ in range(config["num_hidden_layers"]))
        self.norm = nn.RMSNorm(config["hidden_size"], config["rms_norm_eps"])
        self._draw()

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, Routed]:
        """Logits [B, L, V] of token ids [B, L], and what the routers did."""
        x = self.embed_tokens(ids)
        cos, sin = angles(ids.shape[1], self.config["head_dim"], self.config["rope_theta"], x.device)
        balance, share = [], []
        for layer in self.layers:
            x, loss, used = layer(x, cos, sin)
            balance.append(loss)
            share.append(used)
        logits = F.linear(self.norm(x), self.embed_tokens.weight)
        return logits, Routed(torch.stack(balance).mean(), torch.stack(share))

    def _draw(self) -> None:
        """Normal weights of the model's initializer_range; what adds to the residual stream, less."""
        deviation = self.config["initializer_range"]
        quiet = deviation / (2 * self.config["num_hidden_layers"]) ** 0.5
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                ends = name.endswith(("o_proj.weight", "mlp.down", "mlp.down.weight"))
                nn.init.normal_(weight, std=quiet if ends else deviation)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions: the halves of a head are the two parts of its numbers."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin


def angles(length: int, head: int, theta: float, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, each [L, head]."""
    frequency = theta ** -(torch.arange(0, head, 2, device=device) / head)
    angle = torch.outer(torch.arange(length, device=device), frequency).repeat(1, 2)
    return angle.cos(), angle.sin()
