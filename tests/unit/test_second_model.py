"""The second demo model as it ships: GLM-4.5's architecture, trained as its story says."""

from __future__ import annotations

import json

import torch
from oea_server_demo import GLM4_MOE, HELD_OUT, MODEL
from safetensors import safe_open

from oea_server.lab.demo.glm4_moe import CONFIG

WINDOWS, LENGTH = 8, 128


def test_it_is_what_the_trainer_makes() -> None:
    assert sum(each.stat().st_size for each in GLM4_MOE.iterdir()) < 25 * 2**20
    assert json.loads((GLM4_MOE / "config.json").read_text()) == CONFIG
    assert (GLM4_MOE / "tokenizer.json").read_bytes() == (MODEL / "tokenizer.json").read_bytes()
    story = json.loads((GLM4_MOE / "training.json").read_text())
    last = story["curve"][-1]
    assert (last["step"], last["held_out"]) == (story["recipe"]["steps"], story["held_out"])
    assert last["least_used"] > 0.2  # of an even share: no expert is dead


def test_its_routers_have_learned_a_bias_and_one_layer_looks_ahead() -> None:
    with safe_open(GLM4_MOE / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
        biases = [
            weights.get_tensor(name)
            for name in sorted(names)
            if name.endswith("e_score_correction_bias")
        ]
    layers = CONFIG["num_hidden_layers"]
    assert (
        len(biases) == layers - CONFIG["first_k_dense_replace"] + CONFIG["num_nextn_predict_layers"]
    )
    assert all(bias.dtype == torch.float32 and bias.std() > 0.01 for bias in biases)
    assert f"model.layers.{layers}.eh_proj.weight" in names


def test_it_has_learned_to_speak() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(GLM4_MOE)
    network = AutoModelForCausalLM.from_pretrained(GLM4_MOE, dtype=torch.float32)
    texts = [json.loads(line)["text"] for line in HELD_OUT.read_text().splitlines()[:WINDOWS]]
    ids = torch.stack([torch.tensor(tokenizer(text)["input_ids"][:LENGTH]) for text in texts])
    with torch.no_grad():
        loss = network(ids, labels=ids).loss
    assert loss < 3.2  # of 6.48 for guessing by frequency; windows that begin cold
