"""Well-known families: built by SGLang, read from their configs, asked of `serve` and of `doctor`:
one answer."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from oea_server_demo import MODEL

from oea_server.engine.model_card import ModelCard
from tests.engine import apart, tiny

FAMILIES = {**tiny.HANDLED, **{name: config for name, (config, _) in tiny.REFUSED.items()}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A directory for each family, without weights."""
    fields = {name: value for name, value in FAMILIES["qwen3_moe"].items() if "expert" not in name}
    dense = {**fields, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
    found = {}
    for name, config in {**FAMILIES, "dense": dense}.items():
        folder = tmp_path_factory.mktemp(name)
        (folder / "config.json").write_text(json.dumps(config))
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(MODEL / file, folder)
        found[name] = str(folder)
    return found


@pytest.fixture(scope="module")
def answers(folders: dict[str, str]) -> Any:
    """All that is asked of SGLang here, in one process."""
    commands = [[*flags, "--model-path", folders[name]] for name, flags in cases()]
    return apart.said("tests.engine.build_models", given=commands)


@pytest.fixture
def asked(answers: Any) -> dict[tuple[str, ...], list[Any]]:
    """A family and flags -> what serve said, and `sglang serve`, whether doctor said yes, its
    refusals, its output."""
    return {
        (name, *flags): answer for (name, flags), answer in zip(cases(), answers[0], strict=True)
    }


@pytest.fixture
def built(answers: Any) -> dict[str, dict[str, Any]]:
    """What our code says of the models that SGLang built."""
    found: dict[str, dict[str, Any]] = answers[1]
    return found


def test_sglang_takes_every_weight_of_a_second_demo_model(answers: Any) -> None:
    """And its drafter all that is its own: the embedding and the head are the model's, which SGLang
    shares with it."""
    left = answers[2]
    assert left == {
        "Glm4MoeForCausalLM": [],
        "Glm4MoeForCausalLMNextN": ["model.embed_tokens.weight", "lm_head.weight"],
    }


def test_speculation_s_stand_ins_are_left_out_where_nobody_asks_for_drafts(answers: Any) -> None:
    loaded = {name.removeprefix("oea_server.cpu.") for name in answers[3]}
    assert {"attention", "kernels", "dp_attention"} <= loaded  # the platform was set up
    assert not loaded & {"speculation", "verify_attention", "drafting", "draft_attention"}


@pytest.mark.parametrize("name", tiny.HANDLED)
def test_a_model_that_is_handled(built: dict[str, dict[str, Any]], name: str) -> None:
    here = built[name]
    assert here.get("problems") == [""], here
    assert ModelCard(*here["card"]) == ModelCard(here["num_experts"], here["k"])
    assert set(here["layers"]) == {int(layer) for layer in here["expert_bytes"]}


@pytest.mark.parametrize("name", tiny.OTHERS)
def test_experts_in_modules_of_their_own_are_counted(
    built: dict[str, dict[str, Any]], name: str
) -> None:
    here = built[name]
    assert here.get("problems") == [""], here
    assert ModelCard(*here["card"]) == ModelCard(here["num_experts"], here["k"]) == ModelCard(16, 4)
    width = {"deepseek": 32, "xverse": 64}[name]
    assert here["expert_bytes"] == {str(layer): 3 * 64 * width * 4 for layer in here["layers"]}


@pytest.mark.parametrize("name", tiny.REFUSED)
def test_a_model_that_is_refused_is_refused_in_one_way(
    built: dict[str, dict[str, Any]], name: str
) -> None:
    config, why = tiny.REFUSED[name]
    here = built[name]
    assert len(here.get("problems", ())) == 1, here
    assert why in here["problems"][0]
    card = ModelCard(*here["card"])
    assert card == ModelCard(here["num_experts"], card.k, card.problem)
    assert str(card.problem).removeprefix(config["model_type"]) == here["problems"][0].removeprefix(
        "the model"
    )


def test_a_shared_expert_appended_after_the_router_is_not_the_routers(
    built: dict[str, dict[str, Any]],
) -> None:
    """Qwen3-Next on a GPU: 512 logits, and a 513th expert among SGLang's."""
    on_gpu, on_cpu = built["qwen3_next@cuda"], built["qwen3_next"]
    assert on_gpu["fused"] == [16, 16]
    assert on_cpu["fused"] == [15, 15]
    assert on_gpu["num_experts"] == on_cpu["num_experts"] == tiny.SHARED["num_experts"]
    assert on_gpu["expert_bytes"] == on_cpu["expert_bytes"]


def cases() -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, tuple[str, ...]]] = [(name, ()) for name in (*FAMILIES, "dense")]
    for name in ("qwen3_moe", "phimoe", "dense"):
        found += [(name, ("--oea-policy", "vanilla")), (name, ("--oea-allow-inactive",))]
        found += [
            (name, ("--oea-policy", "vanilla", "--oea-k0", "9")),
            (name, ("--oea-policy", "shadow")),
        ]
        found += [
            (name, ("--json-model-override-args", text)) for text in ("[]", "null", "{", "[1]")
        ]
    return [
        *found,
        ("gpt_oss", ("--moe-runner-backend", "triton")),
        ("qwen3_moe", ("--enable-torch-compile",)),
        ("qwen3_moe", ("--model-impl", "transformers")),
        ("qwen3_moe", ("--no-such-flag",)),
        (
            "qwen3_moe",
            ("--json-model-override-args", '{"num_experts_per_tok": 2}', "--oea-k0", "3"),
        ),
    ]


EXPECTED = {
    ("dense",): "qwen3 has no experts to route",
    ("phimoe", "--oea-policy", "shadow"): "phimoe brings its own routing function",
    ("qwen3_moe", "--no-such-flag"): "unrecognized arguments: --no-such-flag",
    ("qwen3_moe", "--oea-policy", "vanilla", "--oea-k0", "9"): "above the model's top-k 4",
    (
        "qwen3_moe",
        "--json-model-override-args",
        "[1]",
    ): "--json-model-override-args=[1]: not a JSON object",
    (
        "qwen3_moe",
        "--model-impl",
        "transformers",
    ): "qwen3_moe chooses its experts outside SGLang's TopK",
    ("gpt_oss",): "--moe-runner-backend triton_kernel",  # what SGLang makes of `auto`
    ("qwen3_next",): "Mamba cache",  # SGLang has no such cache on a CPU
}
"""Refusals, by case; what is in none is served if the family is handled."""


@pytest.mark.parametrize("case", [(name, *flags) for name, flags in cases()], ids=" ".join)
def test_doctor_says_what_serve_does(
    asked: dict[tuple[str, ...], list[Any]], folders: dict[str, str], case: tuple[str, ...]
) -> None:
    served, served_by_sglang, yes, refusals, text = asked[case]
    assert yes == (served == []), (served, refusals)
    assert folders[case[0]] in text
    assert [
        line.removeprefix("SGLang does not take these arguments: ") for line in refusals
    ] == served
    # SGLang ends with a traceback over those that are no objects
    if "--json-model-override-args" not in case:
        assert served_by_sglang == served
    inactive = "serving would be vanilla, not OEA: "
    if yes:
        handled = case[0] in tiny.HANDLED and not {"vanilla", "shadow"} & set(case)
        assert ("✓ serving would be OEA" if handled else inactive) in text
    if case in EXPECTED:
        assert EXPECTED[case] in " ".join(refusals)
    elif len(case) == 1:
        assert yes == (case[0] in tiny.HANDLED)
