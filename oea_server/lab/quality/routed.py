"""A Hugging Face MoE model whose routers are ours for a while: a forward hook replaces what they
chose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from oea_server.lab.quality.router_classes import KNOWN, Outputs
from oea_server.routing import Router

Choose = Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]
"""(router logits of a layer [S, L, N] in the model's dtype, the layer's number) -> weights
[S, L, k] and ids [S, L, k]."""


class UnsupportedModelError(ValueError):
    """The checkpoint has no routers that we know how to replace, or others beside them."""


class Routers(NamedTuple):
    """The routers of a model, first layer first.

    Args:
        modules: what is hooked.
        each: how each of them routes; they differ in their biases alone.
        num_experts: N.
        outputs: where in what a module returns its choice is.
    """

    modules: Sequence[nn.Module]
    each: Sequence[Router]
    num_experts: int
    outputs: Outputs = Outputs()

    @property
    def k(self) -> int:
        """Experts per token."""
        return self.each[0].k

    @property
    def renormalize(self) -> bool:
        """Whether the weights of the k are divided by their sum."""
        return self.each[0].renormalize


def routers(model: nn.Module) -> Routers:
    """Find the routers of a model.

    Raises:
        UnsupportedModelError: there are none that we know, or others as well; with what there is.
    """
    blocks = model.modules()
    found: list[tuple[Any, Any]] = [
        (each, block) for block in blocks for each in block.children() if _is_known(each)
    ]
    mine = {type(each).__name__ for each, _ in found}
    others = {
        type(each).__name__ for each in model.modules() if "Router" in type(each).__name__
    } - mine
    if others or not mine:
        what = (
            f"its routers are {', '.join(sorted(others | mine))}" if others else "it has no routers"
        )
        raise UnsupportedModelError(
            f"{type(model).__name__}: {what}; docs/quality.md lists the models that are known"
        )
    classes = [KNOWN[type(each).__name__] for each, _ in found]
    each = [kind.read(module, block) for kind, (module, block) in zip(classes, found, strict=True)]
    sizes: set[Any] = {
        (module.num_experts, router.k, kind.outputs)
        for kind, router, (module, _) in zip(classes, each, found, strict=True)
    }
    if len(sizes) > 1:
        raise UnsupportedModelError(
            f"{type(model).__name__}: its layers differ in experts, or in how many a token takes"
        )
    num_experts, _, outputs = sizes.pop()
    return Routers([module for module, _ in found], each, num_experts, outputs)


def _is_known(module: nn.Module) -> bool:
    return type(module).__name__ in KNOWN


@contextmanager
def routed(found: Routers, sequences: int, choose: Choose) -> Iterator[None]:
    """While inside, the model's forward passes over `sequences` sequences take experts as `choose`
    says."""
    place = found.outputs

    def hook(layer: int) -> Callable[..., Any]:
        def replace(
            module: nn.Module, args: Any, output: tuple[torch.Tensor, ...]
        ) -> tuple[torch.Tensor, ...]:
            logits = output[place.logits]
            weights, ids = choose(logits.view(sequences, -1, logits.shape[-1]), layer)
            changed = list(output)
            for at, chosen in ((place.weights, weights), (place.ids, ids)):
                changed[at] = chosen.flatten(0, 1).to(output[at].dtype)
            return tuple(changed)

        return replace

    handles = [
        module.register_forward_hook(hook(layer)) for layer, module in enumerate(found.modules)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
