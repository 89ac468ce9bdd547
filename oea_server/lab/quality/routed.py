"""A Hugging Face MoE model whose routers are ours for a while.

Seam: the router modules of transformers 5 (`Qwen3MoeTopKRouter` and its like), which return
(router logits, weights, ids): a forward hook replaces the last two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

Choose = Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]
"""Router logits of a layer [S, L, N], in the model's own dtype as a server has them, and the layer's number
-> weights [S, L, k] and ids [S, L, k]."""

SOFTMAX_TOP_K = (
    *(
        "Qwen2MoeTopKRouter",
        "Qwen3MoeTopKRouter",
        "Qwen3NextTopKRouter",
        "Qwen3_5MoeTopKRouter",
        "Qwen3VLMoeTextTopKRouter",
    ),
    *("OlmoeTopKRouter", "FlexOlmoTopKRouter", "MixtralTopKRouter"),
)
"""Routers that take the k best of a softmax over all experts, which is what our policies reproduce."""
ALWAYS_RENORMALIZE = ("MixtralTopKRouter",)


class UnsupportedModelError(ValueError):
    """The checkpoint has no router that we know how to replace."""


class Routers(NamedTuple):
    """The routers of a model, first layer first.

    Args:
        k: experts per token.
        num_experts: N.
        renormalize: whether the weights of the k are divided by their sum.
    """

    modules: list[nn.Module]
    k: int
    num_experts: int
    renormalize: bool


def routers(model: nn.Module) -> Routers:
    """Find them.

    Raises:
        UnsupportedModelError: there are none of a kind that we know; with what there is.
    """
    found = [each for each in model.modules() if type(each).__name__ in SOFTMAX_TOP_K]
    if not found:
        like = sorted({type(each).__name__ for each in model.modules() if "Router" in type(each).__name__})
        what = f"its routers are {', '.join(like)}" if like else "it has no routers"
        raise UnsupportedModelError(f"{type(model).__name__}: {what}; known are {', '.join(SOFTMAX_TOP_K)}")
    first: Any = found[0]
    renormalize = type(first).__name__ in ALWAYS_RENORMALIZE or bool(getattr(first, "norm_topk_prob", False))
    return Routers(found, int(first.top_k), int(first.num_experts), renormalize)


@contextmanager
def routed(found: Routers, sequences: int, choose: Choose) -> Iterator[None]:
    """While inside, the model's forward passes over `sequences` sequences take experts as `choose` says."""

    def hook(layer: int) -> Callable[..., Any]:
        def replace(module: nn.Module, args: Any, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            logits = output[0]
            weights, ids = choose(logits.view(sequences, -1, logits.shape[-1]), layer)
            return logits, weights.flatten(0, 1).to(output[1].dtype), ids.flatten(0, 1).to(output[2].dtype)

        return replace

    handles = [module.register_forward_hook(hook(layer)) for layer, module in enumerate(found.modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
