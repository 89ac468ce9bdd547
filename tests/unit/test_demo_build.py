import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from oea_server.lab.demo import build


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.build(tmp_path_factory.mktemp("demo") / "model")


def test_weights_are_seeded_and_have_the_config_s_shapes(model: Path, tmp_path: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    config = json.loads((model / "config.json").read_text())
    layers, experts = config["num_hidden_layers"], config["num_experts"]
    assert len(tensors) == 3 + layers * (9 + 3 * experts)
    assert tensors["model.embed_tokens.weight"].shape == (
        config["vocab_size"],
        config["hidden_size"],
    )
    down = tensors[f"model.layers.{layers - 1}.mlp.experts.{experts - 1}.down_proj.weight"]
    assert down.shape == (config["hidden_size"], config["moe_intermediate_size"])
    build.write_weights(tmp_path)
    assert torch.equal(
        down,
        load_file(tmp_path / "model.safetensors")[
            f"model.layers.{layers - 1}.mlp.experts.{experts - 1}.down_proj.weight"
        ],
    )


def test_the_tokenizer_round_trips_and_knows_its_chat_template(model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    for text in ("Hello, world!", "naïve café → 東京 🎉", "  spaces\n\ttabs"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.eos_token_id == json.loads((model / "config.json").read_text())["eos_token_id"]


def test_building_again_changes_nothing_and_leaves_no_scratch(model: Path) -> None:
    before = (model / "config.json").stat().st_mtime_ns
    assert build.build(model) == model
    assert (model / "config.json").stat().st_mtime_ns == before
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_an_interrupted_build_leaves_nothing_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(directory: Path, config: build.Config) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "write_weights", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build.build(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
