"""Which routers SGLang builds for a model, told by its config before anything is built.

The keys are SGLang's architectures (`EntryClass` of `sglang.srt.models`). A model that is not in
the table is judged when its routers are built. tests/unit/test_families.py holds the table to the
source of the installed SGLang.
"""

from __future__ import annotations

from importlib.metadata import version

from oea_server.engine import families
from oea_server.engine.router_traits import Traits

BUILT_BY = {
    "afmoe.AfmoeMoE": "AfmoeForCausalLM",
    "bailing_moe.BailingMoESparseMoeBlock": (
        "BailingMoEForCausalLM BailingMoeForCausalLM "
        "BailingMoeV2ForCausalLM SarvamMoEForCausalLM BailingMM2NativeForConditionalGeneration "
        "BailingMMNativeForConditionalGeneration"
    ),
    "bailing_moe_linear.BailingMoE": "BailingMoeV2_5ForCausalLM",
    "bailing_moe_v3.BailingMoE": "BailingMoeV3ForCausalLM BailingMoeV3VLForConditionalGeneration",
    "beam.BeamMoE": "BeamForCausalLM",
    "cohere2_moe.Cohere2MoeSparseMoeBlock": (
        "Cohere2MoeForCausalLM Cohere2VisionForConditionalGeneration"
    ),
    "dbrx.DbrxExperts": "DbrxForCausalLM",
    "deepseek.DeepseekMoE": (
        "DeepseekForCausalLM DeepseekOCRForCausalLM DeepseekVL2ForCausalLM UnlimitedOCRForCausalLM"
    ),
    "deepseek_v2.DeepseekV2MoE": (
        "DeepseekV2ForCausalLM DeepseekV3ForCausalLM "
        "DeepseekV32ForCausalLM DeepseekV4ForCausalLM DotsVLMForCausalLM GigaChat35ForCausalLM "
        "Glm5NextForConditionalGeneration GlmMoeDsaForCausalLM HYV4ForCausalLM "
        "KimiK25ForConditionalGeneration KimiVLForConditionalGeneration MistralLarge3ForCausalLM "
        "PixtralForConditionalGeneration DeepseekOCRForCausalLM DeepseekVL2ForCausalLM"
    ),
    "dots3_common.modeling.Dots3MoE": "Dots3NoteForCausalLM",
    "ernie4.Ernie4Moe": (
        "Ernie4_5_ForCausalLM Ernie4_5_MoeForCausalLM PaddleOCRVLForConditionalGeneration"
    ),
    "ernie45_moe_vl.Ernie4_5_VLMoeMoE": "Ernie4_5_VLMoeForConditionalGeneration",
    "exaone_moe.ExaoneMoESparseMoEBlock": "ExaoneMoEForCausalLM ExaoneMoeForCausalLM",
    "gemma4_causal.Gemma4MoE": (
        "Gemma4ForCausalLM Gemma4ForConditionalGeneration "
        "Gemma4UnifiedForConditionalGeneration DiffusionGemmaForBlockDiffusion"
    ),
    "glm4_moe.Glm4MoeSparseMoeBlock": "Glm4MoeForCausalLM Glm4vMoeForConditionalGeneration",
    "glm4_moe_lite.Glm4MoeLiteSparseMoeBlock": "Glm4MoeLiteForCausalLM",
    "gpt_oss.GptOssSparseMoeBlock": "GptOssForCausalLM InternVLChatModel",
    "granitemoe.GraniteMoeMoE": (
        "GraniteMoeForCausalLM GraniteMoeHybridForCausalLM "
        "GraniteMoeSharedForCausalLM GraniteMoeSWAForCausalLM"
    ),
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
    "nemotron_h.NemotronHMoE": (
        "NemotronHForCausalLM NemotronHPuzzleForCausalLM "
        "NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Nano_VL_V2 NemotronH_Omni_Reasoning_V3"
    ),
    "olmoe.OlmoeMoE": "OlmoeForCausalLM",
    "phimoe.PhiMoE": "PhiMoEForCausalLM",
    "qwen2_moe.Qwen2MoeSparseMoeBlock": (
        "Qwen2MoeForCausalLM Qwen3NextForCausalLM "
        "Qwen3_5ForCausalLM Qwen3_5ForConditionalGeneration Qwen3_5MoeForCausalLM "
        "Qwen3_5MoeForConditionalGeneration Qwen4ExpForConditionalGeneration "
        "InternS2PreviewForConditionalGeneration MiniCPMV MiniCPMV4_6ForConditionalGeneration "
        "MiniCPMV4_7ForConditionalGeneration"
    ),
    "qwen3_moe.Qwen3MoeSparseMoeBlock": (
        "Qwen3MoeForCausalLM Qwen3VLMoeForConditionalGeneration "
        "Qwen3OmniMoeForConditionalGeneration InternS1ForConditionalGeneration InternVLChatModel "
        "MellumForCausalLM"
    ),
    "sarvam_moe.SarvamMoESparseMoeBlock": "SarvamMLAForCausalLM",
    "sdar_moe.SDARMoeSparseMoeBlock": "SDARMoeForCausalLM",
    "step3_vl.Step3TextMoEMLP": "Step3VLForConditionalGeneration",
    "step3p5.Step3p5MoEMLP": "Step3p5ForCausalLM Step3p7ForConditionalGeneration",
    "transformers.TransformersFusedMoE": (
        "TransformersMoEForCausalLM TransformersMultiModalMoEForCausalLM"
    ),
    "xllm.XllmSparseMoeBlock": "XllmForCausalLM K2HorizonForCausalLM",
    "xverse_moe.XverseMoE": "XverseMoeForCausalLM",
    "zaya.ZayaBlock": "ZayaForCausalLM",
}
"""A block -> the architectures whose models build it; some build one or the other."""

WITHOUT_LAYER = {
    "0.5.17": (
        "bailing_moe.BailingMoESparseMoeBlock bailing_moe_linear.BailingMoE "
        "dbrx.DbrxExperts deepseek.DeepseekMoE ernie45_moe_vl.Ernie4_5_VLMoeMoE "
        "exaone_moe.ExaoneMoESparseMoEBlock granitemoe.GraniteMoeMoE hunyuan_v3.HYV3MoEFused "
        "kimi_k3.KimiK3MoE kimi_linear.KimiMoE llada2.LLaDA2MoeSparseMoeBlock llama4.Llama4MoE "
        "mimo_v2.MiMoV2MoE minimax_m2.MiniMaxM2MoE mixtral.MixtralMoE nemotron_h.NemotronHMoE "
        "olmoe.OlmoeMoE phimoe.PhiMoE xverse_moe.XverseMoE"
    )
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


def blocks_of(architecture: str, config: families.Config) -> tuple[str, ...]:
    """The blocks that a model builds for its text config; () for an architecture not in the table.

    DeepSeek's vision models choose by `use_mla` (models/deepseek_vl2.py, deepseek_ocr.py).
    """
    blocks = ARCHITECTURES.get(architecture, ())
    if architecture in ("DeepseekVL2ForCausalLM", "DeepseekOCRForCausalLM"):
        return blocks[1:] if config.get("use_mla", True) or families.noaux(config) else blocks[:1]
    return blocks


def traits_of(architecture: str, config: families.Config) -> Traits | None:
    """What the model's routers are like; None if the table cannot tell.

    Args:
        architecture: the first of the config's `architectures`.
        config: the part of the config that names the experts.
    """
    layerless = WITHOUT_LAYER.get(version("sglang"), "").split()
    found = {
        families.BLOCKS[block].traits(config)._replace(knows_layer=block not in layerless)
        for block in blocks_of(architecture, config)
    }
    return found.pop() if len(found) == 1 else None
