"""What is trained here: the arithmetic of Hugging Face's `Qwen3MoeForCausalLM` or
`Glm4MoeForCausalLM`.

Which of them is read from the configuration, part by part. Experts are stacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from oea_server.lab.demo.training.feed_forward import Dense, MixtureOfExperts, Used


class Routed(NamedTuple):
    """What the routers of one forward pass did, in the order of `Network.routers`.

    Args:
        balance: 0-d; the mean of `Used.balance`.
        share: [R, N]; each expert's share of the router's tokens; the rows sum to k. Without
            routers, [0, 0].
    """

    balance: torch.Tensor
    share: torch.Tensor

    @classmethod
    def of(cls, used: list[Used]) -> Routed:
        """All routers' in one."""
        if not used:
            return cls(torch.zeros(()), torch.zeros(0, 0))
        return cls(
            torch.stack([each.balance for each in used]).mean(),
            torch.stack([each.share for each in used]),
        )


class Attention(nn.Module):
    """Grouped queries, rotary positions, causal; Qwen3 normalises each head's queries and keys, GLM
    some models'."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        hidden, self.head = config["hidden_size"], config["head_dim"]
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        bias = config["attention_bias"]
        self.q_proj = nn.Linear(hidden, heads * self.head, bias=bias)
        self.k_proj = nn.Linear(hidden, kv_heads * self.head, bias=bias)
        self.v_proj = nn.Linear(hidden, kv_heads * self.head, bias=bias)
        self.o_proj = nn.Linear(heads * self.head, hidden, bias=False)
        normed = config.get("use_qk_norm", True)
        self.q_norm = nn.RMSNorm(self.head, config["rms_norm_eps"]) if normed else nn.Identity()
        self.k_norm = nn.RMSNorm(self.head, config["rms_norm_eps"]) if normed else nn.Identity()

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        def heads(each: torch.Tensor) -> torch.Tensor:
            return each.view(*each.shape[:-1], -1, self.head)

        queries = rotate(self.q_norm(heads(self.q_proj(x))).transpose(1, 2), cos, sin)
        keys = rotate(self.k_norm(heads(self.k_proj(x))).transpose(1, 2), cos, sin)
        values = heads(self.v_proj(x)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, enable_gqa=True
        )
        out: torch.Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return out


class Layer(nn.Module):
    def __init__(self, config: Mapping[str, Any], inner: int | None) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config["hidden_size"], config["rms_norm_eps"])
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config["hidden_size"], config["rms_norm_eps"])
        self.mlp: nn.Module = (
            Dense(config["hidden_size"], inner) if inner else MixtureOfExperts(config)
        )

    def forward(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, list[Used]]:
        """The residual stream after this layer; what its router did, if it has one."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        out = self.mlp(self.post_attention_layernorm(x))
        if isinstance(self.mlp, Dense):
            return x + out, []
        mixed, used = out
        return x + mixed, [used]


class Ahead(nn.Module):
    """GLM-4.5's and DeepSeek-V3's multi-token prediction: one layer that guesses the token after
    the next.

    From where the model was before its head, and the next token's embedding; head and embedding are
    the model's."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        hidden, epsilon = config["hidden_size"], config["rms_norm_eps"]
        self.enorm, self.hnorm = nn.RMSNorm(hidden, epsilon), nn.RMSNorm(hidden, epsilon)
        self.eh_proj = nn.Linear(2 * hidden, hidden, bias=False)
        self.layer = Layer(config, None)
        self.shared_head = nn.ModuleDict({"norm": nn.RMSNorm(hidden, epsilon)})

    def forward(
        self, embedded: torch.Tensor, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, list[Used]]:
        x = self.eh_proj(torch.cat([self.enorm(embedded), self.hnorm(hidden)], dim=-1))
        x, used = self.layer(x, cos, sin)
        return self.shared_head["norm"](x), used


class Network(nn.Module):
    """The whole model.

    Args:
        config: a Hugging Face configuration. The output embedding is the input's: `export` writes
            it twice.
        dense: the baseline instead: one SwiGLU as wide as the experts that a token takes, so the
            same work per token.
    """

    def __init__(self, config: Mapping[str, Any], dense: bool = False) -> None:
        super().__init__()
        self.config = config
        self.rotary = int(config["head_dim"] * config.get("partial_rotary_factor", 1.0))
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        inner: list[int | None] = [config["intermediate_size"]] * config.get(
            "first_k_dense_replace", 0
        )
        rest = config["moe_intermediate_size"] * config["num_experts_per_tok"] if dense else None
        inner += [rest] * (config["num_hidden_layers"] - len(inner))
        self.layers = nn.ModuleList(Layer(config, each) for each in inner)
        self.norm = nn.RMSNorm(config["hidden_size"], config["rms_norm_eps"])
        self.ahead = Ahead(config) if config.get("num_nextn_predict_layers", 0) else None
        self._draw()

    @property
    def routers(self) -> list[MixtureOfExperts]:
        """First layer first, the layer that looks ahead last."""
        return [each for each in self.modules() if isinstance(each, MixtureOfExperts)]

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, Routed]:
        """Logits [B, L, V] of token ids [B, L], and what the routers did."""
        hidden, used = self._hidden(ids)
        return F.linear(hidden, self.embed_tokens.weight), Routed.of(used)

    def twice(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Routed]:
        """Logits [B, L, V] for the next token, [B, L - 1, V] for the one after it, and what all
        routers did."""
        if self.ahead is None:
            raise TypeError("this network has no layer that looks ahead")
        hidden, used = self._hidden(ids)
        cos, sin = angles(ids.shape[1] - 1, self.rotary, self.config["rope_theta"], ids.device)
        further, more = self.ahead(self.embed_tokens(ids[:, 1:]), hidden[:, :-1], cos, sin)
        head = self.embed_tokens.weight
        return F.linear(hidden, head), F.linear(further, head), Routed.of(used + more)

    def _hidden(self, ids: torch.Tensor) -> tuple[torch.Tensor, list[Used]]:
        """What the head reads [B, L, H]."""
        x = self.embed_tokens(ids)
        cos, sin = angles(ids.shape[1], self.rotary, self.config["rope_theta"], x.device)
        used: list[Used] = []
        for layer in self.layers:
            x, more = layer(x, cos, sin)
            used += more
        return self.norm(x), used

    def _draw(self) -> None:
        """Normal weights of the model's initializer_range; what adds to the residual stream,
        less."""
        deviation = self.config["initializer_range"]
        quiet = deviation / (2 * self.config["num_hidden_layers"]) ** 0.5
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                ends = name.endswith(("o_proj.weight", "mlp.down", "down.weight"))
                nn.init.normal_(weight, std=quiet if ends else deviation)
            elif name.endswith(".bias"):
                nn.init.zeros_(weight)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions for the first numbers of a head, as many as there are angles; their halves
    are the two parts."""
    turned, kept = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    low, high = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat([-high, low], dim=-1) * sin
    return torch.cat([turned, kept], dim=-1) if kept.shape[-1] else turned


def angles(
    length: int, rotary: int, theta: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, each [L, rotary]."""
    frequency = theta ** -(torch.arange(0, rotary, 2, device=device) / rotary)
    angle = torch.outer(torch.arange(length, device=device), frequency).repeat(1, 2)
    return angle.cos(), angle.sin()
