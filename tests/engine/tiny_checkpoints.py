"""Tiny checkpoints of well-known families, as data: transformers' class, and what of its config is
not `SIZES`."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.engine.tiny import BODY, LATENT

EXPERTS, K, K0 = 16, 4, 2
EXPERT_BYTES = 3 * 64 * 64 * 4
"""Float32, as served."""


class Recipe(NamedTuple):
    """One family's checkpoint."""

    kind: str
    """Of transformers: its `Config` and `ForCausalLM` have this in front."""
    fields: dict[str, Any]
    """Of the config."""
    written: dict[str, Any] = {}  # noqa: RUF012
    """What the family's own `config.json` says besides, and transformers does not write."""
    flags: str = ""
    """Of SGLang's."""
    expert_bytes: int = EXPERT_BYTES

    @property
    def architecture(self) -> str:
        return str(
            self.written.get("architectures", [f"{self.kind.removesuffix('Text')}ForCausalLM"])[0]
        )


SIZES: dict[str, Any] = {
    **BODY,
    "moe_intermediate_size": 64,
    "num_experts": 16,
    "num_experts_per_tok": 4,
}
MLA = {
    **LATENT,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 2.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 256,
    },
}
DEEPSEEK = {
    "n_routed_experts": 16,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "num_hidden_layers": 3,
}
SIGMOID = {"topk_method": "noaux_tc", "scoring_func": "sigmoid", "moe_layer_freq": 1}
SHARED = {"shared_expert_intermediate_size": 64}
FULL = {"layer_types": ["full_attention"] * 2}
DENSE_FIRST = {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}
NO_SNAPSHOTS = "--disable-radix-cache"
"""Of a state that SGLang keeps beside the keys and values, which no CPU takes."""
FAMILIES = {
    "Mixtral": Recipe("Mixtral", {"num_local_experts": 16}),
    "OLMoE": Recipe("Olmoe", {"num_key_value_heads": 4}),
    "Granite-MoE": Recipe("GraniteMoe", {"num_local_experts": 16, "intermediate_size": 64}),
    "Qwen2-MoE": Recipe("Qwen2Moe", SHARED),
    "Hunyuan-3": Recipe(
        "HYV3",
        {"num_hidden_layers": 3, "num_shared_experts": 1},
        {"route_norm": True, "first_k_dense_replace": 1},
    ),
    "GLM-4.5": Recipe(
        "Glm4Moe", {**DEEPSEEK, "routed_scaling_factor": 2.5, "n_group": 4, "topk_group": 2}
    ),
    "GLM-4.7-Flash": Recipe(
        "Glm4MoeLite", {**MLA, **DEEPSEEK, "routed_scaling_factor": 1.8}, SIGMOID
    ),
    "DeepSeek-V2": Recipe(
        "DeepseekV2",
        {**MLA, **DEEPSEEK, "n_group": 4, "topk_group": 2, "topk_method": "group_limited_greedy"},
        {"scoring_func": "softmax", "norm_topk_prob": False, "moe_layer_freq": 1},
    ),
    "DeepSeek-V3": Recipe(
        "DeepseekV3", {**MLA, **DEEPSEEK, "n_group": 4, "topk_group": 2}, SIGMOID
    ),
    "Kimi-K2": Recipe(
        "DeepseekV3",
        {**MLA, **DEEPSEEK, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 2.827},
        SIGMOID,
    ),
    "ERNIE-4.5": Recipe(
        "Ernie4_5_Moe",
        {
            "num_hidden_layers": 3,
            "moe_num_experts": 16,
            "moe_k": 4,
            "moe_num_shared_experts": 1,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": 2,
        },
    ),
    "Gemma-4": Recipe(
        "Gemma4Text",
        {
            "enable_moe_block": True,
            "top_k_experts": 4,
            "hidden_size_per_layer_input": 0,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 128,
            "global_head_dim": 16,
        },
        {"architectures": ["Gemma4ForCausalLM"], "swa_num_key_value_heads": 2, "swa_head_dim": 16},
    ),
    "Command-A": Recipe(
        "Cohere2Moe",
        {"expert_selection_fn": "sigmoid", "norm_topk_prob": False, "sliding_window": 128},
    ),
    "Laguna": Recipe(
        "Laguna",
        {
            **SHARED,
            "sliding_window": 128,
            "num_hidden_layers": 3,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
    ),
    "LongCat": Recipe(
        "LongcatFlash",
        {
            **MLA,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "num_hidden_layers": 4,  # attentions, which are two a layer
            "ffn_hidden_size": 64,
            "expert_ffn_hidden_size": 64,
            "moe_topk": 4,
            "n_routed_experts": 16,
            "zero_expert_num": 8,
        },
        {
            "num_hidden_layers": 2,
            "num_experts_per_tok": 4,  # by which SGLang's routing replay knows the width
            "zero_expert_type": "identity",
            "attention_method": "MLA",
            "router_bias": False,
            "rope_scaling": MLA["rope_parameters"],
        },
    ),
    "MiniMax-M2": Recipe(
        "MiniMaxM2",
        {"num_local_experts": 16},
        {
            **SIGMOID,
            "use_qk_norm": True,
            "qk_norm_type": "per_layer",
            "use_routing_bias": True,
            "rotary_dim": 8,
        },
    ),
    "gpt-oss": Recipe(
        "GptOss",
        {"num_local_experts": 16, "layer_types": ["sliding_attention", "full_attention"]},
        flags="--moe-runner-backend triton",
        expert_bytes=EXPERT_BYTES + 3 * 64 * 4,  # biases
    ),
    "Hunyuan-A13B": Recipe(
        "HunYuanMoEV1",
        {"moe_topk": 4},
        {
            "use_qk_norm": True,
            "use_mixed_mlp_moe": True,
            "num_shared_expert": 1,
            "attention_head_dim": 16,
        },
    ),
    "Trinity": Recipe("Afmoe", {**DENSE_FIRST, "num_dense_layers": 1, "num_shared_experts": 1}),
    "K-EXAONE": Recipe(
        "ExaoneMoe",
        {**DENSE_FIRST, "num_shared_experts": 1, "mlp_layer_types": ["dense", "sparse", "sparse"]},
        {"is_moe_layer": [False, True, True], "sliding_window_pattern": None},
    ),
    "LFM2": Recipe(
        "Lfm2Moe",
        {
            "num_hidden_layers": 3,
            "layer_types": ["conv", "full_attention", "conv"],
            "num_dense_layers": 1,
            "tie_word_embeddings": True,
        },
        flags=NO_SNAPSHOTS,
    ),
    "Granite-4.0-H": Recipe(
        "GraniteMoeHybrid",
        {**FULL, "num_local_experts": 16, "shared_intermediate_size": 64, "mamba_n_heads": 8},
    ),
    "Qwen3-Next": Recipe(
        "Qwen3Next", {**SHARED, **FULL}, {"full_attention_interval": 1}, NO_SNAPSHOTS
    ),
    "Qwen3.5": Recipe(
        "Qwen3_5MoeText", {**SHARED, **FULL}, {"full_attention_interval": 1}, NO_SNAPSHOTS
    ),
    "Nemotron-3": Recipe(
        "NemotronH",
        {
            "num_hidden_layers": 4,
            "layers_block_type": ["attention", "moe"] * 2,
            "n_routed_experts": 16,
            "moe_shared_expert_intermediate_size": 64,
        },
        {"layers_block_type": ["attention", "moe"] * 2},
        NO_SNAPSHOTS,
        expert_bytes=2 * 64 * 64 * 4,  # without a gate
    ),
}

NOT_ON_TWO_RANKS = {
    "OLMoE": "SGLang norms queries over all heads, which no rank has",
    "Gemma-4": (
        "its experts' GELU runs by SGLang's own code, which fails on the id -1 of other ranks'"
        " experts"
    ),
    "gpt-oss": (
        "SGLang's loader gives each rank its own share of the experts that the rank holds whole"
    ),
    "Nemotron-3": (
        "SGLang takes a GPU's runner for it on a CPU as well, whose experts keep the ids of all"
        " ranks"
    ),
    "LongCat": "refused there: SGLang adds its experts that compute nothing once for each rank",
}
"""Why a family does not run there."""
