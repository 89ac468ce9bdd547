"""Tiny checkpoints whose weights no class of transformers writes: a config.json, and names and
shapes as SGLang loads.

The layers' kinds of attention are those that run on a CPU: of the two Kimi the full one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.engine.shapes import (
    HEAD,
    HIDDEN,
    QK_NORMS,
    VOCABULARY,
    W123,
    Shapes,
    attention,
    experts,
    gate,
    model,
    stacked,
    swiglu,
)
from tests.engine.tiny import LATENT
from tests.engine.tiny_checkpoints import EXPERT_BYTES, EXPERTS, NO_SNAPSHOTS, SIZES, K


class Handmade(NamedTuple):
    """One family's checkpoint."""

    config: dict[str, Any]
    """Its config.json."""
    shapes: Shapes
    """Of its weights, by name."""
    flags: str = ""
    """Of SGLang's."""
    expert_bytes: int = EXPERT_BYTES

    @property
    def architecture(self) -> str:
        return str(self.config["architectures"][0])


OWN_CODE = {"auto_map": {"AutoConfig": "configuration_tiny.TinyConfig"}}
"""Of families whose config.json is read by code beside it, as is their authors' (`checkpoints`
writes one)."""
TRUSTED = "--trust-remote-code"
COMMON: dict[str, Any] = {
    **SIZES,
    "vocab_size": VOCABULARY,
    "num_hidden_layers": 3,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "torch_dtype": "float32",
}
STEP = {
    "moe_num_experts": EXPERTS,
    "moe_top_k": K,
    "moe_layers_enum": "1,2",
    "share_expert_dim": 64,
}
STEP_3: Shapes = {
    **{f"self_attn.{name}_proj.weight": (HEAD, HIDDEN) for name in "kv"},
    "self_attn.q_proj.weight": (32, HIDDEN),
    "self_attn.inter_norm.weight": (32,),
    "self_attn.wq.weight": (64, 32),
    "self_attn.o_proj.weight": (HIDDEN, 64),
}
KIMI_ATTENTION: Shapes = {
    "self_attn.q_proj.weight": (4 * 32, HIDDEN),
    "self_attn.kv_a_proj_with_mqa.weight": (32, HIDDEN),
    "self_attn.kv_a_layernorm.weight": (16,),
    "self_attn.kv_b_proj.weight": (4 * 32, 16),
    "self_attn.o_proj.weight": (HIDDEN, 64),
}
LING: Shapes = {
    "attention.query_key_value.weight": (8 * HEAD, HIDDEN),
    "attention.dense.weight": (HIDDEN, 64),
    "attention.query_layernorm.weight": (HEAD,),
    "attention.key_layernorm.weight": (HEAD,),
}
KIMI: dict[str, Any] = {
    **COMMON,
    **LATENT,
    "model_type": "kimi_linear",
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "num_experts_per_token": K,
    "num_shared_experts": 1,
    "moe_router_activation_func": "sigmoid",
    "routed_scaling_factor": 2.446,
    "first_k_dense_replace": 1,
    "mla_use_nope": True,
    "linear_attn_config": {
        "full_attn_layers": [1, 2, 3],
        "kda_layers": [],
        "head_dim": HEAD,
        "num_heads": 4,
        "short_conv_kernel_size": 4,
    },
}


def kimi(where: str) -> Shapes:
    """With the experts of each layer there."""
    bias = "gate.e_score_correction_bias"
    sparse = {**gate(where, bias), **experts(where, W123), **swiglu(f"{where}.shared_experts")}
    return model([KIMI_ATTENTION] * 3, sparse)


FAMILIES = {
    "Step-3": Handmade(
        {
            "architectures": ["Step3VLForConditionalGeneration"],
            "model_type": "step3_vl",
            **{
                name: COMMON[name]
                for name in ("hidden_size", "num_hidden_layers", "vocab_size", "torch_dtype")
            },
            "text_config": {
                **COMMON,
                **STEP,
                "model_type": "step3_text",
                "share_q_dim": 32,
                "norm_expert_weight": False,
            },
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 32,
                "output_hidden_size": HIDDEN,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 28,
            },
            "understand_projector_stride": 2,
            "projector_bias": False,
            "image_token_id": 3,
        },
        model([STEP_3] * 3, {**gate("moe"), **stacked("moe"), **swiglu("share_expert")}),
    ),
    "Step-3.5": Handmade(
        {
            **COMMON,
            **STEP,
            **OWN_CODE,
            "architectures": ["Step3p5ForCausalLM"],
            "model_type": "step3p5",
            "num_attention_groups": 2,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "attention_other_setting": {"num_attention_heads": 8, "num_attention_groups": 2},
            "sliding_window": 128,
            "yarn_only_types": [],
            "use_head_wise_attn_gate": True,
            "partial_rotary_factors": [0.5, 1.0, 0.5],
            "rope_theta": [10000.0] * 3,
            "rope_scaling": None,
            "use_moe_router_bias": True,
            "moe_router_scaling_factor": 3.0,
            "need_fp32_gate": True,
            "swiglu_limits": [0.0] * 3,
            "swiglu_limits_shared": [0.0] * 3,
        },
        model(
            [
                {**attention(heads), **QK_NORMS, "self_attn.g_proj.weight": (heads, HIDDEN)}
                for heads in (4, 8, 4)
            ],
            {**gate("moe", "router_bias"), **stacked("moe"), **swiglu("share_expert")},
        ),
        TRUSTED,
    ),
    "Ling": Handmade(
        {
            **COMMON,
            **OWN_CODE,
            "architectures": ["BailingMoeV2ForCausalLM"],
            "model_type": "bailing_moe_v2",
            "num_shared_experts": 1,
            "n_group": 4,
            "topk_group": 2,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
            "moe_router_enable_expert_bias": True,
            "score_function": "sigmoid",
            "router_dtype": "fp32",
            "use_bias": False,
            "use_qkv_bias": False,
            "use_qk_norm": True,
            "first_k_dense_replace": 1,
            "embedding_dropout": 0.0,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        model(
            [LING] * 3,
            {**gate("mlp", "gate.expert_bias"), **experts("mlp"), **swiglu("mlp.shared_experts")},
            "word_embeddings",
        ),
        TRUSTED,
    ),
    "Kimi-Linear": Handmade(
        {**KIMI, "architectures": ["KimiLinearForCausalLM"]}, kimi("block_sparse_moe"), NO_SNAPSHOTS
    ),
    "Kimi-K3": Handmade(
        {**KIMI, "architectures": ["KimiK3LinearForCausalLM"]}, kimi("mlp"), NO_SNAPSHOTS
    ),
    "MiMo-V2": Handmade(
        {
            **COMMON,
            **OWN_CODE,
            "architectures": ["MiMoV2FlashForCausalLM"],
            "model_type": "mimo_v2_flash",
            "v_head_dim": HEAD,
            "swa_num_attention_heads": 4,
            "swa_num_key_value_heads": 2,
            "swa_head_dim": HEAD,
            "swa_v_head_dim": HEAD,
            "swa_rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "attention_bias": False,
            "attention_value_scale": 0.707,
            "add_swa_attention_sink_bias": True,
            "add_full_attention_sink_bias": False,
            "hybrid_layer_pattern": [0, 1, 0],
            "sliding_window": 128,
            "sliding_window_size": 128,
            "moe_layer_freq": [0, 1, 1],
            "n_routed_experts": EXPERTS,
            "n_shared_experts": None,
            "n_group": 1,
            "topk_group": 1,
            "norm_topk_prob": True,
            "scoring_func": "sigmoid",
            "topk_method": "noaux_tc",
            "layernorm_epsilon": 1e-6,
        },
        model(
            [attention(), {**attention(), "self_attn.attention_sink_bias": (4,)}, attention()],
            {**gate("mlp", "gate.e_score_correction_bias"), **experts("mlp")},
        ),
        TRUSTED,
    ),
}
