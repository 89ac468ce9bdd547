"""Configs of well-known MoE families, cut down until SGLang builds their models in a second on a
CPU."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

BODY: Config = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
"""What every tiny model has, built or served."""
SIZES: Config = {
    **BODY,
    "moe_intermediate_size": 32,
    "vocab_size": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "attention_bias": False,
    "torch_dtype": "float32",
}
LATENT: Config = {
    "kv_lora_rank": 16,
    "q_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
}
"""Sizes of latent attention."""
MLA: Config = {
    **LATENT,
    "rope_scaling": {  # SGLang has no other kind for these models on a CPU
        "type": "yarn",
        "factor": 2,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 256,
    },
}
LINEAR: Config = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 2,
    "partial_rotary_factor": 0.5,
}


def model(architecture: str, model_type: str, **fields: Any) -> Config:
    return {**SIZES, "architectures": [architecture], "model_type": model_type, **fields}


QWEN3: Config = {
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
}
DEEPSEEK: Config = {
    **MLA,
    "n_routed_experts": 16,
    "num_experts_per_tok": 4,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
}
GLM4: Config = {
    "n_routed_experts": 16,
    "num_experts_per_tok": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "partial_rotary_factor": 0.5,
    "use_qk_norm": False,
}
SHARED: Config = {
    "shared_expert_intermediate_size": 32,
    "num_experts": 15,
    "num_experts_per_tok": 4,
}

HANDLED = {
    "qwen3_moe": model("Qwen3MoeForCausalLM", "qwen3_moe", **QWEN3, mlp_only_layers=[]),
    "qwen3_next": model(
        "Qwen3NextForCausalLM",
        "qwen3_next",
        **LINEAR,
        **SHARED,
        norm_topk_prob=True,
        mlp_only_layers=[],
    ),
    "qwen2_moe": model(
        "Qwen2MoeForCausalLM", "qwen2_moe", **SHARED, norm_topk_prob=False, mlp_only_layers=[]
    ),
    "mixtral": model("MixtralForCausalLM", "mixtral", num_local_experts=8, num_experts_per_tok=2),
    "olmoe": model(
        "OlmoeForCausalLM", "olmoe", num_experts=16, num_experts_per_tok=4, num_key_value_heads=4
    ),
    "granitemoe": model(
        "GraniteMoeForCausalLM",
        "granitemoe",
        num_local_experts=8,
        num_experts_per_tok=2,
        embedding_multiplier=1.0,
        attention_multiplier=1.0,
        residual_multiplier=1.0,
        logits_scaling=1.0,
    ),
    "hunyuan": model(
        "HunYuanMoEV1ForCausalLM",
        "hunyuan_v1_moe",
        num_experts=16,
        moe_topk=[4, 2],
        moe_intermediate_size=[32, 32],
        num_shared_expert=[1, 1],
        use_mixed_mlp_moe=True,
        use_qk_norm=True,
        cla_share_factor=1,
        attention_head_dim=16,
        use_cla=False,
    ),
    "gpt_oss": model(
        "GptOssForCausalLM",
        "gpt_oss",
        num_local_experts=8,
        num_experts_per_tok=2,
        sliding_window=128,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "glm4_moe": model("Glm4MoeForCausalLM", "glm4_moe", **GLM4),
    "deepseek_v2": model(
        "DeepseekV2ForCausalLM",
        "deepseek_v2",
        **DEEPSEEK,
        n_group=1,
        topk_group=1,
        topk_method="greedy",
        scoring_func="softmax",
    ),
    "deepseek_v3": model(
        "DeepseekV3ForCausalLM",
        "deepseek_v3",
        **DEEPSEEK,
        n_group=4,
        topk_group=2,
        topk_method="noaux_tc",
        scoring_func="sigmoid",
    ),
    "kimi_k2": model(
        "DeepseekV3ForCausalLM",
        "kimi_k2",
        **DEEPSEEK,
        n_group=1,
        topk_group=1,
        topk_method="noaux_tc",
        scoring_func="sigmoid",
    ),
    "ernie4_5_moe": model(
        "Ernie4_5_MoeForCausalLM",
        "ernie4_5_moe",
        moe_num_experts=16,
        moe_k=4,
        moe_num_shared_experts=1,
        moe_layer_start_index=1,
        moe_layer_end_index=1,
        moe_layer_interval=1,
        use_bias=False,
    ),
    "minimax_m2": model(
        "MiniMaxM2ForCausalLM",
        "minimax_m2",
        num_local_experts=16,
        num_experts_per_tok=4,
        scoring_func="sigmoid",
        use_routing_bias=True,
        use_qk_norm=True,
        qk_norm_type="per_layer",
        rotary_dim=8,
    ),
    "lfm2_moe": model(
        "Lfm2MoeForCausalLM",
        "lfm2_moe",
        num_experts=16,
        num_experts_per_tok=4,
        num_dense_layers=1,
        layer_types=["conv", "full_attention"],
        conv_L_cache=3,
        conv_bias=False,
        norm_eps=1e-5,
        norm_topk_prob=True,
        use_expert_bias=True,
        routed_scaling_factor=1.0,
    ),
}
"""Families that are routed by the policy, on the runner `triton`."""

REFUSED = {
    "llama4": (
        model(
            "Llama4ForCausalLM",
            "llama4_text",
            num_local_experts=8,
            num_experts_per_tok=1,
            interleave_moe_layer_step=1,
            intermediate_size_mlp=64,
            no_rope_layers=[1, 1],
            attention_chunk_size=256,
            use_qk_norm=False,
        ),
        "own routing function",
    ),
    "phimoe": (
        model(
            "PhiMoEForCausalLM",
            "phimoe",
            num_local_experts=8,
            num_experts_per_tok=2,
            lm_head_bias=False,
        ),
        "own routing function",
    ),
}
"""Families whose routers cannot be handled, and what of the reason must be said."""

OTHERS = {
    "deepseek": model(
        "DeepseekForCausalLM",
        "llama",  # the real model types need code of their own
        n_routed_experts=16,
        num_experts_per_tok=4,
        n_shared_experts=1,
        first_k_dense_replace=1,
        moe_layer_freq=1,
        norm_topk_prob=False,
        shared_expert_intermediate_size=32,
    ),
    "xverse": model(
        "XverseMoeForCausalLM",
        "llama",
        num_experts=16,
        moe_top_k=4,
        num_shared_experts=1,
    ),
}
"""Families that keep their experts in modules of their own, without `FusedMoE`."""
