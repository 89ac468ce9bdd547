"""Configs as model families write them: where the experts are named, and how."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from oea_server import serve
from oea_server.engine import architectures, model_card
from oea_server.engine.model_card import ModelCard
from oea_server.settings import Settings, SettingsError

QWEN = {"num_experts": 128, "num_experts_per_tok": 8}
OLD = version("sglang") == "0.5.17"


def config(architecture: str, **fields: Any) -> dict[str, Any]:
    return {"architectures": [architecture], "model_type": "some", **fields}


NESTED: list[tuple[dict[str, Any], int, int]] = [
    # the talker has experts of its own, which the server does not run
    (
        config(
            "Qwen3OmniMoeForConditionalGeneration",
            talker_config={"text_config": {"num_experts": 64, "num_experts_per_tok": 6}},
            thinker_config={"text_config": QWEN, "vision_config": {"depth": 27}},
        ),
        128,
        8,
    ),
    (config("Qwen3VLMoeForConditionalGeneration", text_config=QWEN), 128, 8),
    (
        config("InternVLChatModel", llm_config={"architectures": ["Qwen3MoeForCausalLM"], **QWEN}),
        128,
        8,
    ),
    (
        config(
            "InternVLChatModel",
            sound_config={"num_experts": 4, "num_experts_per_tok": 1},
            llm_config=QWEN,
        ),
        128,
        8,
    ),
    (config("Qwen3MoeForCausalLM", text_config={"hidden_size": 8}, **QWEN), 128, 8),
    (config("Qwen3MoeForCausalLM", text_config={}, **QWEN), 128, 8),
    (config("Qwen3MoeForCausalLM", inner_config={"deeper_config": QWEN}), 128, 8),
    (
        config(
            "Qwen3MoeForCausalLM",
            vision_config={"num_experts": 4, "num_experts_per_tok": 1},
            **QWEN,
        ),
        128,
        8,
    ),
    (
        config("Qwen3MoeForCausalLM", num_experts_per_tok=8, text_config={"num_experts": 128}),
        128,
        8,
    ),
    # one number per layer: the least is what all of them have
    (config("HunYuanMoEV1ForCausalLM", num_experts=64, moe_topk=[8, 8, 4]), 64, 4),
    (config("HunYuanMoEV1ForCausalLM", num_experts=64, moe_topk=8), 64, 8),
    (config("HunYuanMoEV1ForCausalLM", num_experts=[64, 64], moe_topk=[0, 8]), 64, 8),
    (
        config(
            "Step3VLForConditionalGeneration", text_config={"moe_num_experts": 48, "moe_top_k": 3}
        ),
        48,
        3,
    ),
    (config("GptOssForCausalLM", num_local_experts=32, num_experts_per_tok=4), 32, 4),
]
LAYERLESS: list[tuple[dict[str, Any], int, int]] = [
    (config("DbrxForCausalLM", ffn_config={"moe_num_experts": 16, "moe_top_k": 4}), 16, 4),
    (config("XverseMoeForCausalLM", num_experts=64, moe_top_k=6), 64, 6),
    (
        config(
            "DeepseekVL2ForCausalLM",
            language_config={
                "n_routed_experts": 64,
                "num_experts_per_tok": 6,
                "use_mla": False,
                "n_group": 1,
            },
            vision_config={"num_experts": 3},
        ),
        64,
        6,
    ),
    (config("MixtralForCausalLM", num_local_experts=8, num_experts_per_tok=2), 8, 2),
]
"""Families whose routers do not know their layer in SGLang 0.5.17."""


@pytest.mark.parametrize(("config", "experts", "k"), NESTED)
def test_where_the_experts_are_named(config: dict[str, Any], experts: int, k: int) -> None:
    assert model_card.of(config) == ModelCard(experts, k)


@pytest.mark.parametrize(("config", "experts", "k"), LAYERLESS)
def test_families_that_tell_their_layer_since(config: dict[str, Any], experts: int, k: int) -> None:
    why = "some builds a router that does not know its layer" if OLD else None
    assert model_card.of(config) == ModelCard(experts, k, why)


ROUTED: list[tuple[dict[str, Any], int, int]] = [
    (
        config("DeepseekV3ForCausalLM", n_routed_experts=256, n_group=8, topk_method="noaux_tc"),
        256,
        8,
    ),
    (config("DeepseekV2ForCausalLM", n_routed_experts=64, n_group=1, topk_method="greedy"), 64, 6),
    (
        config(
            "DeepseekVL2ForCausalLM",
            language_config={"n_routed_experts": 72, "topk_method": "noaux_tc"},
        ),
        72,
        6,
    ),
    (config("Glm4MoeForCausalLM", n_routed_experts=128, n_group=1), 128, 8),
    (config("KimiLinearForCausalLM", num_experts=256, num_expert_group=1), 256, 8),
    (config("Step3p5ForCausalLM", moe_num_experts=288), 288, 8),
    (config("NemotronHForCausalLM", n_routed_experts=512, n_group=1), 512, 22),
    (
        config(
            "BailingMoeV2ForCausalLM",
            num_experts=256,
            n_group=8,
            moe_router_enable_expert_bias=True,
        ),
        256,
        8,
    ),
    (config("DeepseekV4ForCausalLM", n_routed_experts=256, scoring_func="sqrtsoftplus"), 256, 6),
    (config("MiniMaxM2ForCausalLM", num_local_experts=256, scoring_func="sigmoid"), 256, 8),
    (config("Ernie4_5_MoeForCausalLM", moe_num_experts=64), 64, 6),
    (config("Cohere2MoeForCausalLM", num_experts=64, expert_selection_fn="sigmoid"), 64, 8),
    (config("Gemma4ForCausalLM", num_experts=128), 128, 8),
    (config("LongcatFlashForCausalLM", n_routed_experts=512, zero_expert_num=256), 512, 12),
    (config("AfmoeForCausalLM", num_experts=128, n_group=1, score_func="sigmoid"), 128, 8),
]


@pytest.mark.parametrize(("config", "experts", "k"), ROUTED)
def test_sigmoid_biases_and_groups(config: dict[str, Any], experts: int, k: int) -> None:
    blocks = architectures.blocks_of(config["architectures"][0], config)
    silent = OLD and set(blocks) & set(architectures.WITHOUT_LAYER["0.5.17"].split())
    why = "some builds a router that does not know its layer" if silent else None
    assert model_card.of({**config, "num_experts_per_tok": k}) == ModelCard(experts, k, why)


ROUTERS: list[tuple[dict[str, Any], str]] = [
    (
        config("MiniMaxM2ForCausalLM", num_local_experts=256, scoring_func="tanh"),
        "tanh scores, which",
    ),
    (
        config("BailingMoeV2ForCausalLM", num_experts=256, router_type="MultiRouter"),
        "biases of several gates",
    ),
    (
        config("Ernie4_5_VLMoeForConditionalGeneration", moe_num_experts=64),
        "several routers in one layer",
    ),
    (
        {
            **config("DeepseekV4ForCausalLM", n_routed_experts=256, vision_n_layers=2),
            "model_type": "deepseek_v41",
        },
        "imag",
    ),
    (
        config("Llama4ForConditionalGeneration", text_config={"num_local_experts": 16}),
        "own routing function",
    ),
    (config("ZayaForCausalLM", num_experts=16), "outside SGLang's TopK"),
]


@pytest.mark.parametrize(("config", "why"), ROUTERS)
def test_what_cannot_be_handled(config: dict[str, Any], why: str) -> None:
    assert why in str(model_card.of(config).problem)


@pytest.mark.parametrize(
    ("config", "doubt"),
    [
        (
            config("FutureMoeForCausalLM", **QWEN, n_group=8),
            "FutureMoeForCausalLM is not in the table",
        ),
        (
            config("Qwen3MoeForCausalLM", number_of_experts=128),
            "names its experts in a way that is not known",
        ),
        (
            config("Qwen3MoeForCausalLM", num_experts=128, top_experts=8),
            "names its top k in a way that is not known",
        ),
    ],
)
def test_what_is_not_known_is_left_to_the_built_routers(config: dict[str, Any], doubt: str) -> None:
    card = model_card.of(config)
    assert card.problem is None
    assert doubt in str(card.doubt)
    assert model_card.problems(Settings(k0="64"), card) == []


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_experts": 0, "num_experts_per_tok": 8},
        {"num_experts": None, "moe_intermediate_size": 64},
        {"num_experts": 1, "moe_topk": 1},
        {"moe_intermediate_size": 64, "text_config": {"intermediate_size": 8}},
        {"vision_config": {"num_experts": 64}},
    ],
)
def test_a_model_without_experts(fields: dict[str, Any]) -> None:
    assert model_card.of(config("Qwen3ForCausalLM", **fields)) == ModelCard(
        problem="some has no experts to route"
    )


@pytest.mark.parametrize("fields", [{}, QWEN])
def test_names_that_are_numbers_are_no_obstacle(fields: dict[str, Any]) -> None:
    """A config that SGLang has built has some: id2label."""
    card = model_card.of(
        config("Qwen3ForCausalLM", id2label={0: "a", 1: {2: {"depth": 3}}}, **fields)
    )
    assert card.num_experts == (128 if fields else 0)


def test_knobs_must_fit_under_vanilla_too() -> None:
    """It can be switched to oea while it serves: a scheduler would refuse it after all ranks have
    started."""
    card = model_card.of(config("Qwen3MoeForCausalLM", **QWEN))
    assert (
        "above the model's top-k 8"
        in model_card.problems(Settings(policy="vanilla", k0="9"), card)[0]
    )
    refused = model_card.of(config("Llama4ForCausalLM", num_local_experts=16))
    assert model_card.problems(Settings(policy="vanilla", k0="9"), refused) == []


@pytest.mark.parametrize("text", ["[]", "null", "{}", "0", '""', "false"])
def test_overrides_that_change_nothing(tmp_path: Path, text: str) -> None:
    written(tmp_path, config("Qwen3MoeForCausalLM", **QWEN))
    assert serve.check(["--model-path", str(tmp_path), "--json-model-override-args", text])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1]", "not a JSON object"),
        ("3", "not a JSON object"),
        ('"x"', "not a JSON"),
        ("{", "not JSON"),
    ],
)
@pytest.mark.parametrize("model", [True, False])
def test_overrides_that_are_no_object(tmp_path: Path, text: str, why: str, model: bool) -> None:
    written(tmp_path, config("Qwen3MoeForCausalLM", **QWEN))
    named = ["--model-path", str(tmp_path)] if model else []
    with pytest.raises(SettingsError) as refusal:
        serve.check([*named, f"--json-model-override-args={text}", "--oea-policy", "vanilla"])
    assert f"--json-model-override-args={text}: {why}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


WRONG = {
    '{"num_experts": "x"}': 'num_experts="x": not a whole number, nor one for each layer',
    '{"num_experts": 1.5}': "num_experts=1.5: not a whole number",
    '{"num_experts": true}': "num_experts=true: not a whole number",
    '{"num_experts": -3}': "num_experts=-3: not a whole number",
    '{"num_experts": {"a": 1}}': 'num_experts={"a": 1}: not a whole number',
    '{"num_experts": 1e400}': "num_experts=Infinity: not a whole number",
    '{"num_experts_per_tok": "8"}': 'num_experts_per_tok="8": not a whole number',
    '{"moe_topk": []}': "moe_topk=[]: not a whole number",
    '{"moe_topk": [8, "x"]}': 'moe_topk=[8, "x"]: not a whole number',
    '{"text_config": []}': "text_config=[]: not an object",
    '{"text_config": null}': "text_config=null: not an object",
    '{"text_config": {"num_experts": "x"}}': 'num_experts="x": not a whole number',
    '{"architectures": 3}': "architectures=3: not a list of names",
    '{"architectures": "Qwen3MoeForCausalLM"}': (
        'architectures="Qwen3MoeForCausalLM": not a list of names'
    ),
    '{"architectures": []}': "architectures=[]: not a list of names",
    '{"architectures": [3]}': "architectures=[3]: not a list of names",
    '{"architectures": {"a": 1}}': 'architectures={"a": 1}: not a list of names',
    '{"model_type": null}': "model_type=null: not a name",
    "[" * 100_000: "=" + "[" * 99 + "…: not JSON that can be read: ",
    '{"num_experts": ' + "9" * 5000 + "}": ": not JSON that can be read: ",
    '{"a": \n"b\u001b[2J"': ": not JSON: ",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:30])
def test_overrides_of_a_wrong_kind(tmp_path: Path, text: str) -> None:
    written(tmp_path, config("Qwen3MoeForCausalLM", **QWEN))
    with pytest.raises(SettingsError) as refusal:
        serve.check(["--model-path", str(tmp_path), "--json-model-override-args", text])
    said = str(refusal.value)
    assert said.startswith("--json-model-override-args")
    assert WRONG[text] in said
    assert len(said.splitlines()) == 1
    assert said.isprintable()
    assert len(said) < 400


@pytest.mark.parametrize(
    "text",
    ['{"num_experts": null}', '{"num_experts": [64, 64]}', '{"num_experts": 64}', '{"x": [{}]}'],
)
def test_overrides_of_a_kind_that_models_have(tmp_path: Path, text: str) -> None:
    written(tmp_path, config("Qwen3MoeForCausalLM", **QWEN))
    assert serve.check(
        [
            "--model-path",
            str(tmp_path),
            "--json-model-override-args",
            text,
            "--oea-policy",
            "vanilla",
        ]
    )


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, '{"architectures": 3}', '{"architectures": {"a": 1}}', "[]", "3", "\udcff"],
)
def test_a_config_of_a_wrong_kind_is_left_to_sglang(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    assert serve.check(["--model-path", str(tmp_path), "--oea-policy", "vanilla"])


def test_an_override_inside_a_nested_config_leaves_the_rest(tmp_path: Path) -> None:
    written(tmp_path, config("Qwen3VLMoeForConditionalGeneration", text_config=QWEN))
    override = '{"text_config": {"num_experts_per_tok": 4}}'
    assert model_card.read_local(str(tmp_path), override) == ModelCard(128, 4)


@pytest.mark.parametrize("text", ["[]", "3", "null", "{broken"])
def test_a_config_that_is_no_object_is_left_to_sglang(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert model_card.read_local(str(tmp_path)) is None


def test_a_family_is_found_by_its_model_type_where_no_architecture_is_named() -> None:
    found = model_card.of({"model_type": "phimoe", "num_local_experts": 8})
    assert found.problem == "phimoe brings its own routing function, which is not supported yet"
    assert all(architectures.ARCHITECTURES[name] for name in architectures.ARCHITECTURES)


def test_the_demo_is_judged_where_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="k0=9 guarantees 9 experts, above the model's top-k 8"):
        serve.check(["--oea-k0", "9"])
    (tmp_path / "c.yaml").write_text("model: another/model")
    assert serve.check(["--oea-k0", "9", "--config", str(tmp_path / "c.yaml")])


def test_what_sglang_is_given_names_everything() -> None:
    positional = serve.command(serve.check(["no/such/model", "--tp", "2"]))
    assert positional == ["--model-path", "no/such/model", "--tp", "2", "--enable-metrics"]


def written(folder: Path, fields: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(fields))
