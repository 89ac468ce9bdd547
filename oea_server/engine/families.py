"""Which router SGLang builds for a model: a table of its model classes, read before anything is built.

The keys are SGLang's: `MODULE.CLASS` under `sglang.srt.models` for the class that constructs a
`TopK`, and the architectures (`EntryClass`) that come to build it. tests/unit/test_families.py
holds the table to the source of the installed SGLang. A model that is not in the table is judged
when its routers are built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

from oea_server.engine.router_traits import Traits

Config = Mapping[str, Any]
Number = Callable[[Config], int]
Yes = Callable[[Config], bool]
Name = Callable[[Config], str]


def always(config: Config) -> bool:
    return True


def never(config: Config) -> bool:
    return False


def no_groups(config: Config) -> int:
    return 0


def softmax(config: Config) -> str:
    return "softmax"


def flag(key: str, default: bool = False) -> Yes:
    return lambda config: bool(config.get(key, default))


def groups(key: str = "n_group") -> Number:
    """`use_grouped_topk=True`, whatever their number."""
    return lambda config: _int(config.get(key)) or 1


def groups_if(*keys: str, above: int = 0) -> Number:
    """Grouped only if one of the numbers is above `above`; the first is the number of groups."""
    return lambda config: max(_int(config.get(keys[0])), 1) if any(_int(config.get(key)) > above for key in keys) else 0


def scores(key: str, default: str) -> Name:
    return lambda config: str(config.get(key) or default)


def sigmoid(config: Config) -> str:
    return "sigmoid"


def noaux(config: Config) -> bool:
    """`MoEGate` has a bias."""
    return config.get("topk_method") == "noaux_tc"


def is_v4(config: Config) -> bool:
    return str(config.get("model_type", "")).startswith("deepseek_v4")


def _int(value: Any) -> int:
    return value if isinstance(value, int) else 0


class Block(NamedTuple):
    """A class that constructs a `TopK`: what it gives it, as functions of the text config."""

    groups: Number = no_groups
    biased: Yes = never
    scoring: Name = softmax
    own_function: Yes = never
    elsewhere: Yes = never
    scaled: Yes = never

    def traits(self, config: Config) -> Traits:
        """What can be said before the runner, the device and the layer are known."""
        found = Traits(*(read(config) for read in self[:5]), scaled=self.scaled(config))
        return found._replace(scoring="sigmoid") if found.groups and found.biased else found


def bailing(config: Config) -> str:
    has_bias = bool(config.get("moe_router_enable_expert_bias"))
    return str(config.get("score_function") or ("sigmoid" if has_bias else "softmax"))


PLAIN = Block()
BIASED_GROUPS = Block(groups(), always, sigmoid)
BAILING = Block(groups_if("n_group", "topk_group"), flag("moe_router_enable_expert_bias"), bailing)
ELSEWHERE = Block(elsewhere=always)

BLOCKS = {
    "afmoe.AfmoeMoE": Block(
        groups_if("n_group", above=1),
        lambda config: _int(config.get("n_group")) > 1,
        own_function=lambda config: config.get("score_func", "softmax") == "sigmoid",
    ),
    "bailing_moe.BailingMoESparseMoeBlock": BAILING,
    "bailing_moe_linear.BailingMoE": BAILING,
    "bailing_moe_v3.BailingMoE": BAILING,
    "beam.BeamMoE": BIASED_GROUPS,
    "cohere2_moe.Cohere2MoeSparseMoeBlock": Block(
        scoring=lambda config: "sigmoid" if config.get("expert_selection_fn") == "sigmoid" else "softmax",
        own_function=lambda config: (
            config.get("expert_selection_fn") == "sigmoid" and not config.get("norm_topk_prob", True)
        ),
    ),
    "dbrx.DbrxExperts": PLAIN,
    "deepseek.DeepseekMoE": PLAIN,
    "deepseek_v2.DeepseekV2MoE": Block(
        lambda config: 0 if is_v4(config) else groups()(config),
        noaux,
        scores("scoring_func", "softmax"),
    ),
    "dots3_common.modeling.Dots3MoE": Block(groups(), noaux),
    "ernie4.Ernie4Moe": Block(biased=always),
    "ernie45_moe_vl.Ernie4_5_VLMoeMoE": Block(biased=always),
    "exaone_moe.ExaoneMoESparseMoEBlock": Block(groups(), always, sigmoid, scaled=always),
    "gemma4_causal.Gemma4MoE": Block(own_function=always),
    "glm4_moe.Glm4MoeSparseMoeBlock": Block(groups(), always),
    "glm4_moe_lite.Glm4MoeLiteSparseMoeBlock": Block(groups(), always),
    "gpt_oss.GptOssSparseMoeBlock": PLAIN,
    "granitemoe.GraniteMoeMoE": PLAIN,
    "grok.Grok1MoE": Block(own_function=always),
    "hunyuan.HunYuanSparseMoeBlock": PLAIN,
    "hunyuan_v3.HYV3MoEFused": Block(lambda config: 1, always, sigmoid, scaled=always),
    "inkling_common.moe.InklingMoE": ELSEWHERE,
    "interns1pro.InternS1ProTextDecoderLayer": Block(
        own_function=lambda config: _int(config.get("router_n_groups", -1)) > 0
    ),
    "interns2_mobius.InternS2MobiusRoutedExpertBank": PLAIN,
    "iquest_q1.IQuestQ1MoEBlock": PLAIN,
    "kimi_k3.KimiK3MoE": Block(groups("num_expert_group"), always, scores("moe_router_activation_func", "sigmoid")),
    "kimi_linear.KimiMoE": Block(groups("num_expert_group"), always),
    "laguna.LagunaMoE": Block(biased=always, scoring=scores("moe_router_score_func", "sigmoid")),
    "lfm2_moe.Lfm2MoeSparseMoeBlock": Block(biased=flag("use_expert_bias", True), scoring=sigmoid),
    "llada2.LLaDA2MoeSparseMoeBlock": BAILING,
    "llama4.Llama4MoE": Block(own_function=always),
    "longcat_flash.LongcatFlashMoE": Block(biased=always),
    "mimo_v2.MiMoV2MoE": Block(groups(), noaux, scores("scoring_func", "sigmoid")),
    "minimax_m2.MiniMaxM2MoE": Block(biased=flag("use_routing_bias"), scoring=scores("scoring_func", "sigmoid")),
    "minimax_m3.MiniMaxM3MoE": Block(
        biased=flag("use_routing_bias"), scoring=scores("scoring_func", "sigmoid"), scaled=always
    ),
    "mixtral.MixtralMoE": PLAIN,
    "muse_spark.MuseSpark1xMoE": ELSEWHERE,
    "nemotron_h.NemotronHMoE": BIASED_GROUPS,
    "olmoe.OlmoeMoE": PLAIN,
    "phimoe.PhiMoE": Block(own_function=always),
    "qwen2_moe.Qwen2MoeSparseMoeBlock": PLAIN,
    "qwen3_moe.Qwen3MoeSparseMoeBlock": PLAIN,
    "sarvam_moe.SarvamMoESparseMoeBlock": Block(
        lambda config: 0 if None in (config.get("n_group"), config.get("topk_group")) else groups()(config),
        always,
        scores("score_function", "sigmoid"),
    ),
    "sdar_moe.SDARMoeSparseMoeBlock": PLAIN,
    "step3_vl.Step3TextMoEMLP": PLAIN,
    "step3p5.Step3p5MoEMLP": Block(biased=always, scoring=sigmoid),
    "transformers.TransformersFusedMoE": ELSEWHERE,
    "xllm.XllmSparseMoeBlock": Block(biased=flag("moe_gate_bias"), scoring=scores("router_score_func", "sigmoid")),
    "xverse_moe.XverseMoE": PLAIN,
    "zaya.ZayaBlock": ELSEWHERE,
}

BUILT_BY = {
    "afmoe.AfmoeMoE": "AfmoeForCausalLM",
    "bailing_moe.BailingMoESparseMoeBlock": "BailingMoEForCausalLM BailingMoeForCausalLM "
    "BailingMoeV2ForCausalLM SarvamMoEForCausalLM BailingMM2NativeForConditionalGeneration "
    "BailingMMNativeForConditionalGeneration",
    "bailing_moe_linear.BailingMoE": "BailingMoeV2_5ForCausalLM",
    "bailing_moe_v3.BailingMoE": "BailingMoeV3ForCausalLM BailingMoeV3VLForConditionalGeneration",
    "beam.BeamMoE": "BeamForCausalLM",
    "cohere2_moe.Cohere2MoeSparseMoeBlock": "Cohere2MoeForCausalLM Cohere2VisionForConditionalGeneration",
    "dbrx.DbrxExperts": "DbrxForCausalLM",
    "deepseek.DeepseekMoE": "DeepseekForCausalLM DeepseekOCRForCausalLM DeepseekVL2ForCausalLM UnlimitedOCRForCausalLM",
    "deepseek_v2.DeepseekV2MoE": "DeepseekV2ForCausalLM DeepseekV3ForCausalLM "
    "DeepseekV32ForCausalLM DeepseekV4ForCausalLM DotsVLMForCausalLM GigaChat35ForCausalLM "
    "Glm5NextForConditionalGeneration GlmMoeDsaForCausalLM HYV4ForCausalLM "
    "KimiK25ForConditionalGeneration KimiVLForConditionalGeneration MistralLarge3ForCausalLM "
    "PixtralForConditionalGeneration DeepseekOCRForCausalLM DeepseekVL2ForCausalLM",
    "dots3_common.modeling.Dots3MoE": "Dots3NoteForCausalLM",
    "ernie4.Ernie4Moe": "Ernie4_5_ForCausalLM Ernie4_5_MoeForCausalLM PaddleOCRVLForConditionalGeneration",
    "ernie45_moe_vl.Ernie4_5_VLMoeMoE": "Ernie4_5_VLMoeForConditionalGeneration",
    "exaone_moe.ExaoneMoESparseMoEBlock": "ExaoneMoEForCausalLM ExaoneMoeForCausalLM",
    "gemma4_causal.Gemma4MoE": "Gemma4ForCausalLM Gemma4ForConditionalGeneration "
    "Gemma4UnifiedForConditionalGeneration DiffusionGemmaForBlockDiffusion EmbeddingGemma2Model",
    "glm4_moe.Glm4MoeSparseMoeBlock": "Glm4MoeForCausalLM Glm4vMoeForConditionalGeneration",
    "glm4_moe_lite.Glm4MoeLiteSparseMoeBlock": "Glm4MoeLiteForCausalLM",
    "gpt_oss.GptOssSparseMoeBlock": "GptOssForCausalLM InternVLChatModel",
    "granitemoe.GraniteMoeMoE": "GraniteMoeForCausalLM GraniteMoeHybridForCausalLM "
    "GraniteMoeSharedForCausalLM GraniteMoeSWAForCausalLM",
    "grok.Grok1MoE": "Grok1ForCausalLM Grok1ModelForCausalLM",
    "hunyuan.HunYuanSparseMoeBlock": "HunYuanMoEV1ForCausalLM HunYuanDenseV1ForCausalLM",
    "hunyuan_v3.HYV3MoEFused": "HYV3ForCausalLM",
    "inkling_common.moe.InklingMoE": "InklingForConditionalGeneration",
    "interns1pro.InternS1ProTextDecoderLayer": "InternS1ProForConditionalGeneration",
    "interns2_mobius.InternS2MobiusRoutedExpertBank": "InternS2MobiusForConditionalGeneration",
    "iquest_q1.IQuestQ1MoEBlock": "IQuestQ1ForCausalLM",
    "kimi_k3.KimiK3MoE": "KimiK3ForConditionalGeneration KimiK3LinearForCausalLM",
    "kimi_linear.KimiMoE": "KimiLinearForCausalLM",
    "laguna.LagunaMoE": "LagunaForCausalLM",
    "lfm2_moe.Lfm2MoeSparseMoeBlock": "Lfm2MoeForCausalLM",
    "llada2.LLaDA2MoeSparseMoeBlock": "LLaDA2MoeModelLM",
    "llama4.Llama4MoE": "Llama4ForCausalLM Llama4ForConditionalGeneration",
    "longcat_flash.LongcatFlashMoE": "LongcatFlashForCausalLM",
    "mimo_v2.MiMoV2MoE": "MiMoV2ForCausalLM MiMoV2FlashForCausalLM",
    "minimax_m2.MiniMaxM2MoE": "MiniMaxM2ForCausalLM",
    "minimax_m3.MiniMaxM3MoE": "MiniMaxM3SparseForCausalLM MiniMaxM3SparseForConditionalGeneration",
    "mixtral.MixtralMoE": "MixtralForCausalLM",
    "muse_spark.MuseSpark1xMoE": "MuseSparkForConditionalGeneration",
    "nemotron_h.NemotronHMoE": "NemotronHForCausalLM NemotronHPuzzleForCausalLM "
    "NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Nano_VL_V2 NemotronH_Omni_Reasoning_V3",
    "olmoe.OlmoeMoE": "OlmoeForCausalLM",
    "phimoe.PhiMoE": "PhiMoEForCausalLM",
    "qwen2_moe.Qwen2MoeSparseMoeBlock": "Qwen2MoeForCausalLM Qwen3NextForCausalLM "
    "Qwen3_5ForCausalLM Qwen3_5ForConditionalGeneration Qwen3_5MoeForCausalLM "
    "Qwen3_5MoeForConditionalGeneration Qwen4ExpForConditionalGeneration "
    "InternS2PreviewForConditionalGeneration MiniCPMV MiniCPMV4_6ForConditionalGeneration "
    "MiniCPMV4_7ForConditionalGeneration",
    "qwen3_moe.Qwen3MoeSparseMoeBlock": "Qwen3MoeForCausalLM Qwen3VLMoeForConditionalGeneration "
    "Qwen3OmniMoeForConditionalGeneration InternS1ForConditionalGeneration InternVLChatModel "
    "MellumForCausalLM",
    "sarvam_moe.SarvamMoESparseMoeBlock": "SarvamMLAForCausalLM",
    "sdar_moe.SDARMoeSparseMoeBlock": "SDARMoeForCausalLM",
    "step3_vl.Step3TextMoEMLP": "Step3VLForConditionalGeneration",
    "step3p5.Step3p5MoEMLP": "Step3p5ForCausalLM Step3p7ForConditionalGeneration",
    "transformers.TransformersFusedMoE": "TransformersMoEForCausalLM TransformersMultiModalMoEForCausalLM",
    "xllm.XllmSparseMoeBlock": "XllmForCausalLM K2HorizonForCausalLM",
    "xverse_moe.XverseMoE": "XverseMoeForCausalLM",
    "zaya.ZayaBlock": "ZayaForCausalLM",
}
"""A block -> the architectures whose models build it; some build one or the other."""

WITHOUT_LAYER = {
    "0.5.17": "bailing_moe.BailingMoESparseMoeBlock bailing_moe_linear.BailingMoE "
    "dbrx.DbrxExperts deepseek.DeepseekMoE ernie45_moe_vl.Ernie4_5_VLMoeMoE "
    "exaone_moe.ExaoneMoESparseMoEBlock granitemoe.GraniteMoeMoE hunyuan_v3.HYV3MoEFused "
    "kimi_k3.KimiK3MoE kimi_linear.KimiMoE llada2.LLaDA2MoeSparseMoeBlock llama4.Llama4MoE "
    "mimo_v2.MiMoV2MoE minimax_m2.MiniMaxM2MoE mixtral.MixtralMoE nemotron_h.NemotronHMoE "
    "olmoe.OlmoeMoE phimoe.PhiMoE xverse_moe.XverseMoE"
}
"""SGLang's version -> the blocks that give their `TopK` no `layer_id`; 0.5.23 asks for one."""


def _by_architecture() -> dict[str, tuple[str, ...]]:
    blocks: dict[str, tuple[str, ...]] = {}
    for block, architectures in BUILT_BY.items():
        for architecture in architectures.split():
            blocks[architecture] = (*blocks.get(architecture, ()), block)
    return blocks


ARCHITECTURES = _by_architecture()
"""An architecture -> the blocks that its model may build."""


def blocks_of(architecture: str, config: Config) -> tuple[str, ...]:
    """The blocks that a model builds for its text config; () for an architecture not in the table.

    DeepSeek's vision models choose by `use_mla` (models/deepseek_vl2.py, deepseek_ocr.py).
    """
    blocks = ARCHITECTURES.get(architecture, ())
    if architecture in ("DeepseekVL2ForCausalLM", "DeepseekOCRForCausalLM"):
        return blocks[1:] if config.get("use_mla", True) or noaux(config) else blocks[:1]
    return blocks


def traits_of(architecture: str, config: Config) -> Traits | None:
    """What the model's routers are like; None if the table cannot tell.

    Args:
        architecture: the first of the config's `architectures`.
        config: the part of the config that names the experts.
    """
    layerless = WITHOUT_LAYER.get(version("sglang"), "").split()
    found = {
        BLOCKS[block].traits(config)._replace(knows_layer=block not in layerless)
        for block in blocks_of(architecture, config)
    }
    return found.pop() if len(found) == 1 else None
