"""What SGLang's model classes give the routers that they build, as functions of the model's config.

The keys are SGLang's: `MODULE.CLASS` under `sglang.srt.models`, of the class that constructs a
`TopK`. tests/unit/test_families.py holds the table to the source of the installed SGLang.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from oea_server.engine.router_traits import IMAGE_BIAS, SEVERAL, SEVERAL_GATES, Traits

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


def nothing(config: Config) -> str:
    return ""


def flag(key: str, default: bool = False) -> Yes:
    return lambda config: bool(config.get(key, default))


def groups(key: str = "n_group") -> Number:
    """`use_grouped_topk=True`, whatever the number of groups."""
    return lambda config: _int(config.get(key)) or 1


def groups_if(*keys: str, above: int = 0) -> Number:
    """Grouped only if one of the numbers is above `above`; the first is the number of groups."""
    return lambda config: (
        max(_int(config.get(keys[0])), 1)
        if any(_int(config.get(key)) > above for key in keys)
        else 0
    )


def scores(key: str, default: str) -> Name:
    return lambda config: str(config.get(key) or default)


def sigmoid(config: Config) -> str:
    return "sigmoid"


def noaux(config: Config) -> bool:
    """`MoEGate` has a bias."""
    return config.get("topk_method") == "noaux_tc"


def is_v4(config: Config) -> bool:
    """DeepSeek-V4's model asks the block of V2 and V3 to choose without groups."""
    names = (config.get("model_type"), *(config.get("architectures") or ()))
    return any(str(name).lower().startswith(("deepseekv4", "deepseek_v4")) for name in names)


def sees_apart(config: Config) -> bool:
    """DeepSeek-V4.1's routers tell image tokens apart."""
    return config.get("model_type") == "deepseek_v41" and _int(config.get("vision_n_layers")) > 0


def _int(value: Any) -> int:
    return value if isinstance(value, int) else 0


class Block(NamedTuple):
    """A class that constructs a `TopK`: what it gives it, as functions of the text config."""

    groups: Number = no_groups
    biased: Yes = never
    scoring: Name = softmax
    own_function: Yes = never
    elsewhere: Yes = never
    apart: Name = nothing
    said: bool = False
    """Whether a rule can say what its own function does."""

    def traits(self, config: Config) -> Traits:
        """What can be said before the runner, the device and the layer are known."""
        found = Traits(
            self.groups(config),
            self.biased(config),
            self.scoring(config),
            self.own_function(config) and not self.said,
            self.elsewhere(config),
            self.apart(config),
        )
        return found._replace(scoring="sigmoid") if found.groups and found.biased else found


def bailing(config: Config) -> str:
    has_bias = bool(config.get("moe_router_enable_expert_bias"))
    return str(config.get("score_function") or ("sigmoid" if has_bias else "softmax"))


def gates(config: Config) -> str:
    several = bool(config.get("multi_gate")) or config.get("router_type") == "MultiRouter"
    return SEVERAL_GATES if several else ""


PLAIN = Block()
BIASED_GROUPS = Block(groups(), always, sigmoid)
BAILING = Block(
    groups_if("n_group", "topk_group"), flag("moe_router_enable_expert_bias"), bailing, apart=gates
)
ELSEWHERE = Block(elsewhere=always)

BLOCKS = {
    "afmoe.AfmoeMoE": Block(
        groups_if("n_group", above=1),
        lambda config: _int(config.get("n_group")) > 1,
        own_function=lambda config: config.get("score_func", "softmax") == "sigmoid",
        said=True,
    ),
    "bailing_moe.BailingMoESparseMoeBlock": BAILING,
    "bailing_moe_linear.BailingMoE": BAILING,
    "bailing_moe_v3.BailingMoE": BAILING,
    "beam.BeamMoE": BIASED_GROUPS,
    "cohere2_moe.Cohere2MoeSparseMoeBlock": Block(
        scoring=lambda config: (
            "sigmoid" if config.get("expert_selection_fn") == "sigmoid" else "softmax"
        ),
        own_function=lambda config: (
            config.get("expert_selection_fn") == "sigmoid"
            and not config.get("norm_topk_prob", True)
        ),
        said=True,
    ),
    "dbrx.DbrxExperts": PLAIN,
    "deepseek.DeepseekMoE": PLAIN,
    "deepseek_v2.DeepseekV2MoE": Block(
        lambda config: 0 if is_v4(config) else groups()(config),
        noaux,
        scores("scoring_func", "softmax"),
        apart=lambda config: IMAGE_BIAS if sees_apart(config) else "",
    ),
    "dots3_common.modeling.Dots3MoE": Block(groups(), noaux),
    "ernie4.Ernie4Moe": Block(biased=always),
    "ernie45_moe_vl.Ernie4_5_VLMoeMoE": Block(biased=always, apart=lambda config: SEVERAL),
    "exaone_moe.ExaoneMoESparseMoEBlock": Block(groups(), always, sigmoid),
    "gemma4_causal.Gemma4MoE": Block(own_function=always, said=True),
    "glm4_moe.Glm4MoeSparseMoeBlock": Block(groups(), always),
    "glm4_moe_lite.Glm4MoeLiteSparseMoeBlock": Block(groups(), always),
    "gpt_oss.GptOssSparseMoeBlock": PLAIN,
    "granitemoe.GraniteMoeMoE": PLAIN,
    "grok.Grok1MoE": Block(own_function=always),
    "hunyuan.HunYuanSparseMoeBlock": PLAIN,
    "hunyuan_v3.HYV3MoEFused": Block(lambda config: 1, always, sigmoid),
    "inkling_common.moe.InklingMoE": ELSEWHERE,
    "interns1pro.InternS1ProTextDecoderLayer": Block(
        own_function=lambda config: _int(config.get("router_n_groups", -1)) > 0
    ),
    "interns2_mobius.InternS2MobiusRoutedExpertBank": PLAIN,
    "iquest_q1.IQuestQ1MoEBlock": PLAIN,
    "kimi_k3.KimiK3MoE": Block(
        groups("num_expert_group"), always, scores("moe_router_activation_func", "sigmoid")
    ),
    "kimi_linear.KimiMoE": Block(groups("num_expert_group"), always),
    "laguna.LagunaMoE": Block(biased=always, scoring=scores("moe_router_score_func", "sigmoid")),
    "lfm2_moe.Lfm2MoeSparseMoeBlock": Block(biased=flag("use_expert_bias", True), scoring=sigmoid),
    "llada2.LLaDA2MoeSparseMoeBlock": BAILING,
    "llama4.Llama4MoE": Block(own_function=always),
    "longcat_flash.LongcatFlashMoE": Block(biased=always),
    "mimo_v2.MiMoV2MoE": Block(groups(), noaux, scores("scoring_func", "sigmoid")),
    "minimax_m2.MiniMaxM2MoE": Block(
        biased=flag("use_routing_bias"), scoring=scores("scoring_func", "sigmoid")
    ),
    "minimax_m3.MiniMaxM3MoE": Block(
        biased=flag("use_routing_bias"), scoring=scores("scoring_func", "sigmoid")
    ),
    "mixtral.MixtralMoE": PLAIN,
    "muse_spark.MuseSpark1xMoE": ELSEWHERE,
    "nemotron_h.NemotronHMoE": BIASED_GROUPS,
    "olmoe.OlmoeMoE": PLAIN,
    "phimoe.PhiMoE": Block(own_function=always),
    "qwen2_moe.Qwen2MoeSparseMoeBlock": PLAIN,
    "qwen3_moe.Qwen3MoeSparseMoeBlock": PLAIN,
    "sarvam_moe.SarvamMoESparseMoeBlock": Block(
        lambda config: (
            0 if None in (config.get("n_group"), config.get("topk_group")) else groups()(config)
        ),
        always,
        scores("score_function", "sigmoid"),
    ),
    "sdar_moe.SDARMoeSparseMoeBlock": PLAIN,
    "step3_vl.Step3TextMoEMLP": PLAIN,
    "step3p5.Step3p5MoEMLP": Block(biased=always, scoring=sigmoid),
    "transformers.TransformersFusedMoE": ELSEWHERE,
    "xllm.XllmSparseMoeBlock": Block(
        biased=flag("moe_gate_bias"), scoring=scores("router_score_func", "sigmoid")
    ),
    "xverse_moe.XverseMoE": PLAIN,
    "zaya.ZayaBlock": ELSEWHERE,
}
