"""Which of a model's routers can be handled, read off the modules that SGLang built.

Seam: `sglang.srt.layers.moe.topk.TopK` and its `TopKConfig`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from oea_server import routing
from oea_server.engine import formats, fronts, model_card, rules
from oea_server.engine.router_traits import (
    IMAGE_BIAS,
    SEVERAL,
    SEVERAL_GATES,
    ZERO_EXPERTS,
    Traits,
    unsupported,
)
from oea_server.engine.rules import Source

OTHER_KINDS = {"HashTopK": "experts follow the token's id, whatever the batch is"}
"""Why routers that are no `TopK` are left alone (DeepSeek-V4's first layers)."""


class Router(NamedTuple):
    """One MoE layer's router. `problem` says why it runs vanilla, None if it can be handled."""

    layer: int
    k: int
    renormalize: bool
    problem: str | None
    source: Source | None = None
    """Where the rest of its rule is read; None for softmax and nothing else."""

    @property
    def rule(self) -> routing.Router:
        """The router's rule, as the routing needs it, at the moment."""
        return rules.router(self.k, self.renormalize) if self.source is None else self.source.rule()

    def __str__(self) -> str:
        if self.problem is not None:
            kind = f"top-{self.k}{' renormalized' if self.renormalize else ''}"
            return f"{kind} left alone ({self.problem})"
        return rules.said(
            self.rule, 0 if self.source is None else rules.columns(self.source.config)[1]
        )


def inspect(model: torch.nn.Module) -> list[Router]:
    """All routers of a model, before its weights load. Empty for a model without experts."""
    from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE
    from sglang.srt.layers.moe.topk import TopK

    found = []
    blocks = {child: module for module in model.modules() for child in module.children()}
    for name, module in model.named_modules():
        if isinstance(module, TopK):
            config = module.topk_config
            layer = -1 if module.layer_id is None else int(module.layer_id)
            why = problem_of(config, layer, blocks.get(module), formats.of(module))
            zeros = int(getattr(blocks.get(module), "zero_expert_num", 0) or 0)
            source = Source(config, is_native(module, model), config.custom_routing_function, zeros)
            found.append(
                Router(layer, rules.columns(config)[0], bool(config.renormalize), why, source)
            )
        elif (kind := type(module).__name__).endswith("TopK"):
            found.append(
                Router(
                    -1,
                    0,
                    False,
                    OTHER_KINDS.get(kind, f"{name} is a {kind}, which is not supported yet"),
                )
            )
    found = _one_each(found)
    widths = {
        int(module.layer_id): int(module.num_global_routed_experts)
        for module in model.modules()
        if isinstance(module, FusedMoE)
    }
    if not found and widths:
        return [Router(-1, 0, False, f"the model {unsupported(Traits(elsewhere=True))}")]
    return [_as_wide_as_others(router, widths) for router in found]


def _as_wide_as_others(router: Router, widths: Mapping[int, int]) -> Router:
    """The router, refused if its layer has fewer experts than others: all share one tally and one
    policy."""
    widest = max(widths.values(), default=0)
    here = widths.get(router.layer, widest)
    if router.problem is not None or here == widest:
        return router
    return router._replace(
        problem=f"the model's layers differ: {here} experts here, {widest} elsewhere"
    )


def _one_each(found: list[Router]) -> list[Router]:
    """The routers, refused where a layer has several: the one that a step asks is not known
    here."""
    layers = Counter(router.layer for router in found if router.layer >= 0)
    why = f"the model {unsupported(Traits(apart=SEVERAL))}"
    return [
        each._replace(problem=each.problem or why) if layers[each.layer] > 1 else each
        for each in found
    ]


def is_native(module: Any, model: torch.nn.Module) -> bool:
    """Whether SGLang runs a `TopK` in plain torch: without a GPU, and where a model asks for it
    (LongCat)."""
    asked = getattr(vars(module).get("forward"), "__func__", None)
    return next(model.parameters()).device.type == "cpu" or asked is type(module).forward_native


def problem_of(
    config: Any, layer: int, block: torch.nn.Module | None = None, output: str = formats.STANDARD
) -> str | None:
    """Why a `TopKConfig` cannot be handled, or None.

    Args:
        block: the module that built its `TopK`.
        output: the format in which its `TopK` hands on what was chosen (`formats.of`).
    """
    biased, own = config.correction_bias is not None, config.custom_routing_function
    why = unsupported(
        Traits(
            groups=(config.num_expert_group or 1) if config.use_grouped_topk else 0,
            biased=biased,
            scoring="sigmoid" if config.use_grouped_topk and biased else config.scoring_func,
            own_function=own is not None and rules.name_of(own) not in rules.OWN_FUNCTIONS,
            apart=apart(block),
            output=formats.STANDARD if _bare(output, config) else output,
            knows_layer=layer >= 0,
        )
    )
    return None if why is None else f"the model {why}"


def _bare(output: str, config: Any) -> bool:
    """Whether experts are sorted by `engine.triton_experts`: SGLang's kernel takes the top k, and
    softmax, of bare logits, whatever else a `TopKConfig` says."""
    apart = (
        config.use_grouped_topk
        or config.correction_bias is not None
        or config.custom_routing_function is not None
    )
    plain = (
        config.scoring_func == "softmax"
        and rules.columns(config)[1] == 0
        and rules.scale_on_output(config) == 1.0
    )
    return output == formats.TRITON_KERNEL and plain and not apart


def apart(block: torch.nn.Module | None) -> str:
    """What a block does to its routers beside its `TopK`; empty if nothing."""
    if getattr(block, "multi_gate", False):
        return SEVERAL_GATES
    if getattr(getattr(block, "gate", None), "e_score_correction_bias_vl", None) is not None:
        return IMAGE_BIAS
    return fronts.problem_of(block)


def zero_experts(found: Sequence[Router]) -> int:
    """Experts that routers choose from beside those that have weights; they compute nothing
    (LongCat-Flash)."""
    return max((each.source.zero_experts for each in found if each.source is not None), default=0)


def on_one_rank(found: Sequence[Router], ranks: int) -> list[Router]:
    """The routers, refused on several ranks where experts compute nothing, because these experts
    lie on no rank.

    SGLang 0.5.23 has no answer there that ours could equal either. Each rank adds what these
    experts give, then the ranks' outputs are summed (`LongcatFlashMoE.forward`, `branch_output`),
    so that two ranks give it twice."""
    if ranks == 1 or not zero_experts(found):
        return list(found)
    why = f"the model {unsupported(Traits(apart=ZERO_EXPERTS))}"
    return [each._replace(problem=each.problem or why) for each in found]


def num_experts(model: torch.nn.Module) -> int:
    """Experts with weights that a router chooses from, redundant replicas included.

    A shared expert that the model fuses with them does not count, whether its column is the
    router's or appended after `TopK` (Qwen3-Next). SGLang's `num_experts` counts it,
    `num_global_routed_experts` does not. Models that keep their experts in modules of their own
    (DeepSeek-MoE, DBRX, XVERSE) are read by their config.
    """
    from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE

    fused = [module for module in model.modules() if isinstance(module, FusedMoE)]
    if fused:
        return max(int(module.num_global_routed_experts) for module in fused)
    config: Any = getattr(model, "config", None)
    return model_card.of(config.to_dict()).num_experts if hasattr(config, "to_dict") else 0


NO_WEIGHTS = re.compile("weight_shape|g_idx|input_|act_scale|swizzled|_mma")
"""Names of tensors by expert that are no weights. Examples are a checkpoint's own bookkeeping,
scales of activations, scales once more in the order that a kernel wants (ModelOpt's NVFP4 keeps
both)."""


def expert_bytes(model: torch.nn.Module) -> dict[int, int]:
    """Bytes of one expert's weights, with their scales, zeros and biases, over all ranks that share
    it, by layer.

    Of experts in modules of their own (DeepSeek-MoE, XVERSE, Trinity) every rank has a slice.
    """
    from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE
    from sglang.srt.layers.moe.topk import TopK

    sizes = {}
    for module in model.modules():
        if isinstance(module, FusedMoE):
            local = module.num_local_experts  # a fused shared expert has the shape of the others
            held = [
                each
                for name, each in module.named_parameters()
                if _is_read(name, each) and len(each) == local
            ]
            here = sum(each.numel() * each.element_size() for each in held) // local
            sizes[int(module.layer_id)] = here * module.moe_tp_size
            continue
        router: Any = getattr(module, "topk", None)
        slices = getattr(module, "experts", None)
        if (
            isinstance(router, TopK)
            and router.layer_id is not None
            and isinstance(slices, torch.nn.ModuleList)
        ):
            here = sum(each.numel() * each.element_size() for each in slices[0].parameters())
            sizes[int(router.layer_id)] = here * int(getattr(module, "tp_size", 1))
    return sizes


def _is_read(name: str, tensor: torch.Tensor) -> bool:
    """Whether a step reads a tensor, by SGLang's names in `create_weights`, which all kinds of
    quantisation share.

    GPTQ's zeros for Marlin are of a float type there: its kernel takes none.
    """
    own = name.rpartition(".")[-1]
    unread = own.endswith("qzeros") and tensor.is_floating_point()
    return own.startswith(("w13_", "w2_")) and NO_WEIGHTS.search(own) is None and not unread


def loaded(created: Mapping[int, int], now: Mapping[int, int]) -> dict[int, int]:
    """Bytes of one expert as its kernel reads it, by layer.

    Some kernels read another format than the checkpoint's (`process_weights_after_loading`). Some
    keep it where it is not a layer's any more (`triton_kernel`, in the checkpoint's four bits):
    then what was created counts.

    Args:
        created: `expert_bytes` before weights load.
        now: the same behind it.
    """
    return {
        layer: size if 2 * now.get(layer, 0) < size else now[layer]
        for layer, size in created.items()
    }
