"""Families of transformers, each as a tiny model: routed by our vanilla they say what they say by
themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from oea_server.lab.quality.arms import parse
from oea_server.lab.quality.measure import Judge
from oea_server.lab.quality.routed import UnsupportedModelError, routed, routers
from oea_server.lab.quality.router_classes import KNOWN
from oea_server.lab.quality.steps import to_sequences, to_steps

SEQUENCES, LENGTH, EXPERTS, K = 4, 6, 16, 4
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 24,
    "moe_intermediate_size": 16,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LOCAL = {"num_local_experts": EXPERTS, "num_experts_per_tok": K}
PLAIN = {"num_experts": EXPERTS, "num_experts_per_tok": K}
ROUTED = {"n_routed_experts": EXPERTS, "n_shared_experts": 1, "num_experts_per_tok": K}
GROUPS = {
    **ROUTED,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
}
MLA = {
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
    "head_dim": 8,
}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention", "full_attention"],
}

FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2_moe": {**PLAIN, "shared_expert_intermediate_size": 16},
    "qwen3_moe": {**PLAIN, "norm_topk_prob": True},
    "qwen3_next": {
        **PLAIN,
        **LINEAR,
        "norm_topk_prob": True,
        "shared_expert_intermediate_size": 16,
    },
    "qwen3_5_moe_text": {**PLAIN, **LINEAR, "shared_expert_intermediate_size": 16},
    "olmoe": PLAIN,
    "flex_olmo": PLAIN,
    "mellum": {**PLAIN, "norm_topk_prob": True},
    "mixtral": LOCAL,
    "minimax": {**LOCAL, "layer_types": ["full_attention"] * 3},
    "gpt_oss": LOCAL,
    "hunyuan_v1_moe": {"num_experts": EXPERTS, "moe_topk": K},
    "granitemoe": LOCAL,
    "granitemoeshared": {**LOCAL, "shared_intermediate_size": 16},
    "granitemoehybrid": {
        **LOCAL,
        "layer_types": ["attention"] * 3,
        "mamba_n_heads": 8,
        "shared_intermediate_size": 16,
    },
    "granitemoe_swa": LOCAL,
    "aria_text": {"moe_num_experts": EXPERTS, "moe_topk": K, "moe_num_shared_experts": 1},
    "ernie4_5_moe": {"moe_num_experts": EXPERTS, "moe_k": K, "moe_num_shared_experts": 1},
    "deepseek_v2": {**MLA, **ROUTED, "first_k_dense_replace": 1, "routed_scaling_factor": 1.5},
    "deepseek_v3": {**MLA, **GROUPS},
    "deepseek_v32": {**MLA, **GROUPS, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 64},
    "dots1": GROUPS,
    "exaone_moe": {
        **PLAIN,
        "n_group": 4,
        "topk_group": 2,
        "num_shared_experts": 1,
        "first_k_dense_replace": 1,
    },
    "glm4_moe": GROUPS,
    "glm4_moe_lite": {**MLA, **GROUPS},
    "glm_moe_dsa": {**MLA, **GROUPS, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 64},
    "kimi_linear": {**MLA, **GROUPS, "num_experts": EXPERTS, "layer_types": LINEAR["layer_types"]},
    "axk1": {**MLA, **GROUPS},
    "hy_v4": {**MLA, **GROUPS},
    "minimax_m3_vl_text": LOCAL,
    "deepseek_v2/grouped": {**MLA, **GROUPS, "topk_method": "group_limited_greedy"},
    "cohere2_moe/sigmoid": {**PLAIN, "expert_selection_fn": "sigmoid"},
    "lfm2_moe/unbiased": {**PLAIN, "layer_types": ["full_attention"] * 3, "use_expert_bias": False},
    "mimo_v2_flash": GROUPS,
    "nemotron_h": GROUPS,
    "solar_open": GROUPS,
    "minimax_m2": LOCAL,
    "hy_v3": {**PLAIN, **LOCAL, "router_scaling_factor": 2.5},
    "lfm2_moe": {
        **PLAIN,
        "num_dense_layers": 1,
        "layer_types": ["conv", "full_attention", "full_attention"],
    },
    "afmoe": {**PLAIN, "num_dense_layers": 1, "route_scale": 2.5},
    "laguna": PLAIN,
    "cohere2_moe": PLAIN,
}
"""By model type, as `AutoModelForCausalLM` knows it; after a slash, what differs from it."""
REFUSED: dict[str, dict[str, Any]] = {
    "phimoe": LOCAL,
    "llama4_text": {**LOCAL, "intermediate_size_mlp": 24},
    "longcat_flash": {
        **MLA,
        "n_routed_experts": EXPERTS,
        "moe_topk": K,
        "expert_ffn_hidden_size": 16,
    },
    "jamba": {**PLAIN, "attn_layer_period": 1, "attn_layer_offset": 0},
    "qwen3": {},
}


def built(name: str, fields: dict[str, Any], device: str = "cpu") -> Any:
    """A model with random weights, and selection biases that choose."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    torch.manual_seed(0)
    # its own class: SGLang, once imported, has AutoConfig give another for some
    config = getattr(transformers, CONFIG_MAPPING_NAMES[name.partition("/")[0]])(
        **{**SIZES, **fields}
    )
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    for each, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if each.endswith(("correction_bias", "expert_bias")):
            tensor.data.uniform_(-0.3, 0.3)
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_vanilla_is_the_model_itself(name: str) -> None:
    model = built(name, FAMILIES[name])
    found = routers(model)
    assert (found.k, found.num_experts) == (K, EXPERTS)
    ids = torch.randint(3, 64, (SEQUENCES, LENGTH))

    def logits(arm: str) -> torch.Tensor:
        chooser = parse(arm).chooser(found)

        def choose(given: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
            routing = chooser(to_steps(given, 2), layer)
            return to_sequences(routing.weights), to_sequences(routing.ids.long())

        with routed(found, SEQUENCES, choose):
            chosen: torch.Tensor = model(ids).logits
        return chosen

    with torch.inference_mode():
        alone = model(ids).logits
        torch.testing.assert_close(logits("vanilla"), alone, rtol=1e-4, atol=1e-4)
        assert (logits("pruned:1") - alone).abs().max() > 0.05


def test_what_is_kept_is_measured_by_the_models_own_scores() -> None:
    """Sigmoids, whose mass a softmax of the same logits does not have, and experts that a bias
    chose."""
    model = built("glm4_moe", FAMILIES["glm4_moe"])
    judge = Judge(model, routers(model), torch.randint(3, 64, (SEQUENCES, LENGTH)))
    vanilla, pruned = (judge.measure(parse(arm), 2) for arm in ("vanilla", "pruned:1"))
    assert vanilla.kept == pytest.approx([1.0] * SEQUENCES)
    assert vanilla.kl == pytest.approx([0.0] * SEQUENCES, abs=1e-6)
    assert all(1 / K - 0.1 < kept < 0.6 for kept in pruned.kept)


def test_every_class_is_tried() -> None:
    tried = {
        type(each).__name__
        for name in FAMILIES
        for each in routers(built(name, FAMILIES[name], "meta")).modules
    }
    assert tried == set(KNOWN)


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(UnsupportedModelError) as refused:
        routers(built(name, REFUSED[name], "meta"))
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith("docs/quality.md lists the models that are known")
