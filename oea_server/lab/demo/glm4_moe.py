"""The second demo model's configuration: GLM-4.5's architecture at the first one's size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oea_server.lab.demo import build

CONFIG: Mapping[str, Any] = {
    "architectures": ["Glm4MoeForCausalLM"],
    "model_type": "glm4_moe",
    "dtype": "bfloat16",
    "torch_dtype": "bfloat16",
    "vocab_size": build.VOCAB,
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "partial_rotary_factor": 0.5,
    "use_qk_norm": True,
    "attention_bias": True,
    "attention_dropout": 0.0,
    "intermediate_size": 256,
    "moe_intermediate_size": 32,
    "n_routed_experts": 128,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "use_cache": True,
}
"""23 MB in bfloat16. GLM-4.5-Air's 128 experts, eight a token, and one dense layer; where the two
GLM-4.5 differ, else GLM-4.5's: queries and keys normalised, and weights that sum to 2.5, so that
whoever forgets the factor is seen."""
