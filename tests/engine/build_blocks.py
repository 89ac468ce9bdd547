"""Builds the MoE blocks of SGLang's models, each from a config of its own, and routes rows by each
block's `TopK`.

Most of these models have an attention that no CPU runs; what routes does run there. Run: python -m
tests.engine.build_blocks. Prints, as JSON, by family: its router in words, why it cannot be
handled, whether our vanilla chooses SGLang's experts, and by how much the weights differ."""

from __future__ import annotations

import importlib
import json
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from oea_server.engine import fronts, routers, rules, runtime
from oea_server.routing import Policy, host
from tests.engine.build_models import start

ROWS = 4096


class Block(NamedTuple):
    """A class that builds a `TopK`, and what of its config is not `COMMON`."""

    name: str
    fields: dict[str, Any]
    given: dict[str, Any] = {}  # noqa: RUF012
    layer: str = "layer_id"


COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "moe_intermediate_size": 32,
    "hidden_act": "silu",
    "num_hidden_layers": 4,
    "num_experts": 64,
    "n_routed_experts": 64,
    "num_local_experts": 64,
    "num_experts_per_tok": 6,
    "num_experts_per_token": 6,
    "n_shared_experts": None,
    "num_shared_experts": 0,
    "n_group": 1,
    "num_expert_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "moe_renormalize": True,
    "routed_scaling_factor": 2.5,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "first_k_dense_replace": 0,
    "moe_layer_freq": 1,
    "architectures": ["Some"],
    "model_type": "some",
}
GROUPED = {"n_group": 8, "topk_group": 4}
DEEPSEEK, BAILING = "deepseek_v2.DeepseekV2MoE", "bailing_moe.BailingMoESparseMoeBlock"
LING = {
    "num_shared_experts": None,
    "moe_router_enable_expert_bias": True,
    "score_function": "sigmoid",
    "router_dtype": "fp32",
    "use_bias": False,
}
KIMI = {
    "num_shared_experts": None,
    "activation_situ_beta": None,
    "activation_situ_linear_beta": None,
    "routed_expert_hidden_size": None,
    "moe_router_activation_func": "sigmoid",
}
V4 = {"scoring_func": "sqrtsoftplus", "num_hash_layers": 3, "vocab_size": 512}
BLOCKS = {
    "DeepSeek-V3": Block(DEEPSEEK, GROUPED),
    "DeepSeek-V2": Block(
        DEEPSEEK,
        {**GROUPED, "topk_method": "greedy", "scoring_func": "softmax", "norm_topk_prob": False},
    ),
    "DeepSeek-V4": Block(DEEPSEEK, V4, {"is_deepseek_v4": True}),
    "DeepSeek-V4, a first layer": Block(DEEPSEEK, V4, {"is_deepseek_v4": True, "layer_id": 0}),
    "ERNIE-4.5": Block(
        "ernie4.Ernie4Moe",
        {"moe_k": 6, "moe_num_experts": 64, "moe_num_shared_experts": 0, "use_bias": False},
    ),
    "Kimi-K2": Block(DEEPSEEK, {}),
    "DeepSeek-V3.2": Block(
        DEEPSEEK, {**GROUPED, "architectures": ["DeepseekV32ForCausalLM"], "index_topk": 2048}
    ),
    "GLM-5": Block(DEEPSEEK, {"architectures": ["GlmMoeDsaForCausalLM"], "index_topk": 2048}),
    "GLM-4.5": Block("glm4_moe.Glm4MoeSparseMoeBlock", {}),
    "GLM-4.7-Flash": Block("glm4_moe_lite.Glm4MoeLiteSparseMoeBlock", {}),
    "Trinity": Block(
        "afmoe.AfmoeMoE", {"score_func": "sigmoid", "route_norm": True, "route_scale": 2.0}
    ),
    "Command-A": Block(
        "cohere2_moe.Cohere2MoeSparseMoeBlock",
        {"expert_selection_fn": "sigmoid", "norm_topk_prob": False},
    ),
    "Gemma-4": Block("gemma4_causal.Gemma4MoE", {"top_k_experts": 6}, {"hidden_size": 32}),
    "MiMo-V2": Block("mimo_v2.MiMoV2MoE", {}),
    "K-EXAONE": Block("exaone_moe.ExaoneMoESparseMoEBlock", {"num_shared_experts": None}),
    "Hunyuan-3": Block(
        "hunyuan_v3.HYV3MoEFused", {"route_norm": True, "router_scaling_factor": 2.5}
    ),
    "MiniMax-M2": Block("minimax_m2.MiniMaxM2MoE", {"use_routing_bias": True}),
    "MiniMax-M3": Block(
        "minimax_m3.MiniMaxM3MoE",
        {
            "use_routing_bias": True,
            "swiglu_limit": 7.0,
            "swiglu_alpha": 1.0,
            "dense_intermediate_size": 32,
        },
    ),
    "Step-3": Block(
        "step3_vl.Step3TextMoEMLP",
        {"moe_num_experts": 64, "moe_top_k": 6, "norm_expert_weight": False},
    ),
    "Step-3.5": Block(
        "step3p5.Step3p5MoEMLP",
        {
            "moe_num_experts": 64,
            "moe_top_k": 6,
            "use_moe_router_bias": True,
            "moe_router_scaling_factor": 3.0,
            "need_fp32_gate": True,
            "swiglu_limits": [0.0] * 4,
            "swiglu_limits_shared": [0.0] * 4,
        },
    ),
    "Ling": Block(BAILING, {**LING, **GROUPED}),
    "Nemotron-3": Block(
        "nemotron_h.NemotronHMoE",
        {
            "moe_shared_expert_intermediate_size": 32,
            "mlp_hidden_act": "relu2",
            "mlp_bias": False,
            "moe_latent_size": None,
        },
        layer="layer_idx",
    ),
    "Kimi-Linear": Block("kimi_linear.KimiMoE", KIMI, layer="layer_idx"),
    "Kimi-K3": Block("kimi_k3.KimiK3MoE", KIMI, layer="layer_idx"),
    "LFM2": Block("lfm2_moe.Lfm2MoeSparseMoeBlock", {"use_expert_bias": True}, layer="layer_idx"),
    "Sarvam": Block(
        "sarvam_moe.SarvamMoESparseMoeBlock", {"n_group": None, "score_function": "sigmoid"}
    ),
    "xLLM": Block(
        "xllm.XllmSparseMoeBlock", {"moe_gate_bias": True, "router_score_func": "sigmoid"}
    ),
    "LongCat": Block(
        "longcat_flash.LongcatFlashMoE",
        {
            "moe_topk": 6,
            "zero_expert_num": 16,
            "zero_expert_type": "identity",
            "rounter_params_dtype": "float32",
            "router_bias": False,
        },
    ),
}


def build(block: Block) -> torch.nn.Module:
    module, _, name = block.name.rpartition(".")
    made = getattr(importlib.import_module(f"sglang.srt.models.{module}"), name)
    config = SimpleNamespace(**{**COMMON, **block.fields})
    config.to_dict = lambda: vars(config)
    # a layer behind those that DeepSeek-V4 routes by a table
    found: torch.nn.Module = made(config=config, **{block.layer: 3, **block.given})
    fronts.turn_off(found)
    return found


def described(block: Block) -> dict[str, Any]:
    model = build(block)
    (router,) = routers.inspect(model)
    said = {
        "problem": router.problem,
        "router": str(router),
        "num_experts": routers.num_experts(model),
    }
    said["past"] = any(getattr(module, fronts.ASKED, False) for module in model.modules())
    if router.problem is not None or router.source is None:
        return said
    dice = torch.Generator().manual_seed(1)
    rule = router.rule
    most = 0.02 if rule.scoring == "softmax" else 0.3  # as large as the scores
    for each, size, least in ((rule.bias, most, 0.0), (rule.expert_scale, 1.0, 1.0)):
        if each is not None:  # as if its weights were loaded
            with torch.no_grad():
                each.copy_(torch.rand(each.shape, generator=dice) * size + least)
    topk: Any = next(module for module in model.modules() if type(module).__name__ == "TopK")
    # ERNIE's, which SGLang does so too for its own CPU engine
    if rule.bias is not None and rule.bias.dim() > 1:
        topk.topk_config.correction_bias = rule.bias.squeeze(0)
    columns = (routers.num_experts(model) or 64) + rule.zero_experts
    logits = torch.randn(ROWS, columns, generator=dice) * 2
    theirs = topk(torch.zeros(ROWS, 32), logits)
    ours = host.route(logits, Policy.vanilla(), router.rule)
    chosen = rules.with_shared((ours.weights, ours.ids), theirs.topk_ids.shape[1], columns, 1.0)
    (weights, ids), (their_weights, their_ids) = (by_id(*each) for each in (chosen, theirs[:2]))
    return {
        **said,
        "rows_apart": int((ids != their_ids).any(dim=1).sum()),
        "off_by": float((weights - their_weights).abs().max()),
    }


def by_id(weights: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    ids, order = ids.long().sort(dim=1)
    return weights.float().gather(1, order), ids


def main() -> None:
    runtime.current = None  # what is built is not taken over
    start()
    found: dict[str, Any] = {}
    for name, block in BLOCKS.items():
        try:
            found[name] = described(block)
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"}
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
