"""The runner `triton_kernel`, SGLang's choice for gpt-oss on Hopper: its router chooses in a kernel
of its own.

Seam: AROUND `sglang.srt.layers.moe.topk.TopK.forward_cuda`, which for this runner hands on no ids
but the slots of a step, sorted by expert (`TritonKernelTopKOutput`). A step that the policy leaves
to the model is SGLang's to the bit; another is sorted here. The kernel's own index argument
(`y_indx`) is of no use: it weighs by softmax whatever was chosen, and keeps a bit for an expert of
a row, where an unused slot has the row's best expert once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from oea_server.engine import formats, runtime, topk
from oea_server.routing.contract import real_rows


def around_forward_cuda(
    original: Callable[..., Any],
    self: Any,
    hidden_states: torch.Tensor,
    router_logits: torch.Tensor,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Route a decode step of this runner by the policy; let everything else through untouched."""
    now = runtime.current
    router = topk.router_of(now, self.layer_id)
    apart = kwargs.get("dynamic_expert_bias") is not None  # for which SGLang asks `select_experts`
    if now is None or router is None or apart or formats.of(self) != formats.TRITON_KERNEL:
        return original(self, hidden_states, router_logits, *args, **kwargs)
    choice = topk.function_of(now, router, self.topk_config)
    if choice is None:
        chosen = original(self, hidden_states, router_logits, *args, **kwargs)
        topk.count(
            now, router, router_logits, ids_of(chosen, len(router_logits), router.k), vanilla=True
        )
        return chosen
    weights, ids = choice(hidden_states, router_logits, router.k, self.topk_config.renormalize)
    topk.count(now, router, router_logits, ids, vanilla=False)
    num_experts = router_logits.shape[1]
    real = real_rows(len(ids), now.num_real(len(ids)), ids.device)
    # SGLang's kernel gives weights in the logits' dtype
    return sorted_by_expert(weights.to(router_logits.dtype), ids, real, num_experts)


class Order(NamedTuple):
    """All slots of a step, by expert."""

    sizes: torch.Tensor
    """[N] int32: slots of each expert."""
    slots: torch.Tensor
    """[B * k] int32: a slot is row * k + column; an expert's slots stand together, -1 behind all of
    them."""
    places: torch.Tensor
    """[B * k] int32: where in `slots` each slot is, -1 if it is nowhere."""


def order(ids: torch.Tensor, real: torch.Tensor, num_experts: int) -> Order:
    """Sort ids [B, k] by expert; rows that are no tokens [B] are left out. Waits for nothing on the
    device."""
    by_slot = ids.long().where(real[:, None], num_experts).flatten()
    experts, slots = by_slot.sort(stable=True)
    counted = torch.zeros(num_experts + 1, dtype=torch.int32, device=ids.device)
    counted.scatter_add_(0, by_slot, torch.ones_like(by_slot, dtype=torch.int32))
    inside = experts < num_experts
    place = torch.arange(len(slots), dtype=torch.int32, device=ids.device).where(inside, -1)
    places = torch.empty_like(place).scatter_(0, slots, place)
    return Order(counted[:num_experts], slots.int().where(inside, -1), places)


def sorted_by_expert(
    weights: torch.Tensor, ids: torch.Tensor, real: torch.Tensor, num_experts: int
) -> Any:
    """A choice as this SGLang's `TritonKernelTopKOutput`: what its `topk.routing` makes of one of
    its own."""
    from sglang.srt.layers.moe import topk as theirs

    found = order(ids, real, num_experts)
    k = ids.shape[1]
    metadata = theirs.make_ragged_tensor_metadata(found.sizes, len(found.slots))
    by_expert = weights.flatten()[found.slots]
    if (data := getattr(theirs, "RoutingData", None)) is not None:  # 0.5.17
        return theirs.TritonKernelTopKOutput(
            data(by_expert, metadata.slice_sizes, num_experts, k, metadata),
            theirs.GatherIndx(found.slots, found.places),
            theirs.ScatterIndx(found.places, found.slots),
        )
    rows = torch.div(found.slots, k, rounding_mode="trunc")
    return theirs.TritonKernelTopKOutput(metadata, rows, found.slots, by_expert, k)


def ids_of(chosen: Any, rows: int, k: int) -> torch.Tensor:
    """The experts [B, k] int32 of a `TritonKernelTopKOutput`, in no order; -1 in rows that it
    leaves out."""
    data = getattr(chosen, "routing_data", None)  # 0.5.17
    metadata = chosen.a_ragged_metadata if data is None else data.expt_data
    slots = chosen.scatter_indx if data is None else chosen.gather_indx.src_indx
    ends = metadata.slice_sizes.cumsum(0)
    place = torch.arange(rows * k, device=slots.device)
    experts = torch.searchsorted(ends, place, right=True)
    found = torch.full((rows * k + 1,), -1, device=slots.device)
    found.scatter_(0, slots.long().where(place < ends[-1], rows * k), experts)
    return found[: rows * k].view(rows, k).int()
