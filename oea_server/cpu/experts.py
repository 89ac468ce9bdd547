"""Which code runs the experts of our CPU platform, and the seam that puts it there.

Seams: `UnquantizedFusedMoEMethod.register_oot_forward`, SGLang's own way for a platform to bring an
operator, its `create_weights`, and its `process_weights_after_loading`, where weights are complete
and nothing runs yet.
SGLang's native version fails on id -1, with which the standard dispatcher marks experts of other
ranks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch

from oea_server.cpu import activations, unfilled, zentorch
from oea_server.cpu.activations import Activation
from oea_server.cpu.loop import run_experts
from oea_server.engine import guard

logger = logging.getLogger(__name__)


class Experts(NamedTuple):
    """One layer's experts, ready to run."""

    kind: Literal["zentorch", "loop"]
    why: str
    run: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    """(x [B, H], weights [B, k] float32, ids [B, k]) -> [B, H], as `loop.run_experts`."""


FUSED = "a fused kernel that reads weights as fast as memory"


def describe() -> str:
    """Which code runs unquantised bfloat16 experts here, and why."""
    why = zentorch.problem()
    return f"zentorch, {FUSED}" if why is None else f"a plain loop: {why}"


def open_experts(w13: torch.Tensor, w2: torch.Tensor) -> Experts:
    """The fastest code that runs these experts right on this machine.

    Args:
        w13: [N, 2I, H] gate and up projections, gate first. Zentorch re-orders it in place: after
            this only the returned object may read or write it.
        w2: [N, H, I] down projections; likewise.
    """
    why = zentorch.problem()
    if why is None and w13.dtype not in zentorch.DTYPES:
        why = f"zentorch does not take {w13.dtype}"
    if why is None and len(w13) < 2:
        why = "zentorch does not take a single expert"
    if why is not None:
        return by_loop(w13, w2, why)
    return Experts("zentorch", FUSED, zentorch.ZentorchExperts(w13, w2))


def by_loop(w13: torch.Tensor, w2: torch.Tensor, why: str) -> Experts:
    """Experts in plain torch, which leaves the weights as they are."""
    return Experts("loop", why, lambda x, weights, ids: run_experts(x, w13, w2, weights, ids))


def after_loading(layer: Any, experts_move: bool = False) -> None:
    """End of `UnquantizedFusedMoEMethod.process_weights_after_loading`: open a layer whose weights
    are complete."""
    if not is_plain(layer):
        return
    before: Experts | None = getattr(layer, "oea_experts", None)
    if before is None:
        layer.oea_experts = open_layer(layer, experts_move)
    elif isinstance(before.run, zentorch.ZentorchExperts) and before.run.rewritten():
        # in their own order again, which zentorch's table cannot be told layer by layer
        layer.oea_experts = by_loop(
            layer.w13_weight.data, layer.w2_weight.data, "its weights were updated"
        )
    now: Experts = layer.oea_experts
    if before is None and getattr(layer, "layer_id", 0) == 0:
        logger.info("OEA: CPU experts by %s: %s", now.kind, now.why)
    elif before is not None and before.kind != now.kind:
        logger.warning("OEA: CPU experts of layer %s by %s: %s", layer.layer_id, now.kind, now.why)


def open_layer(layer: Any, experts_move: bool) -> Experts:
    """`open_experts` of an SGLang layer, by the loop where its weights will be written into while
    it serves."""
    w13, w2 = layer.w13_weight.data, layer.w2_weight.data
    if experts_move:
        return by_loop(w13, w2, "--enable-eplb moves experts, which zentorch re-orders")
    try:
        return open_experts(w13, w2)
    except RuntimeError:
        odd = unfilled.not_finite(w13, w2)
        if not odd:
            raise
        whose = f"expert {odd[0]}" + (f" and {len(odd) - 1} more" if len(odd) > 1 else "")
        why = (
            f"layer {getattr(layer, 'layer_id', 0)}: the weights of {whose} hold NaN or infinity;"
            " fetch the checkpoint anew"
        )
        guard.end(why, verb="refusing to start")


def moves_experts() -> bool:
    """Whether SGLang will move experts from rank to rank while it serves."""
    from sglang.srt.runtime_context import get_server_args

    return bool(get_server_args().enable_eplb)


def between(layer: Any) -> Activation | None:
    """A layer's activation; None where SGLang runs it: with biases, or weighted at its start."""
    config = layer.moe_runner_config
    if config.apply_router_weight_on_input or getattr(layer, "w13_weight_bias", None) is not None:
        return None
    return activations.of(config)


def is_plain(layer: Any) -> bool:
    """Whether a layer is SwiGLU without biases, weighted at its end: what is opened once, for the
    fastest code."""
    return between(layer) is activations.swiglu


def forward(self: Any, layer: Any, dispatch_output: Any) -> Any:
    """`UnquantizedFusedMoEMethod.forward` on our CPU platform."""
    from sglang.srt.layers.moe.token_dispatcher import StandardCombineInput

    act = between(layer)
    if act is None:
        return self.forward_native(layer, dispatch_output)
    x, topk = dispatch_output.hidden_states, dispatch_output.topk_output
    if act is not activations.swiglu:
        weights = layer.w13_weight, layer.w2_weight
        return StandardCombineInput(
            hidden_states=run_experts(x, *weights, topk.topk_weights, topk.topk_ids, act)
        )
    if not hasattr(layer, "oea_experts"):
        layer.oea_experts = open_layer(layer, moves_experts())
    return StandardCombineInput(
        hidden_states=layer.oea_experts.run(x, topk.topk_weights, topk.topk_ids)
    )


def install(dispatch_key: str) -> None:
    """Serve unquantised experts by `forward` on the platform of that dispatch key."""
    from sglang.srt.layers.quantization.unquant import UnquantizedFusedMoEMethod as Method

    Method.register_oot_forward(Method, forward, dispatch_key)
    creates, processes = Method.create_weights, Method.process_weights_after_loading

    def create_weights(self: Any, layer: Any, *args: Any, **kwargs: Any) -> None:
        creates(self, layer, *args, **kwargs)
        unfilled.mark(layer)

    def process_weights_after_loading(self: Any, layer: Any) -> None:
        is_first = not hasattr(layer, "oea_experts") and unfilled.fills_first()
        if is_first and (problem := unfilled.problem(layer)):
            guard.end(problem, verb="refusing to start")
        processes(self, layer)
        after_loading(layer, moves_experts())

    Method.create_weights = create_weights
    Method.process_weights_after_loading = process_weights_after_loading
