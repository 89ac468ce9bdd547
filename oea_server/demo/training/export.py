"""The trained network as a Hugging Face checkpoint in bfloat16."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from oea_server.demo.training.network import Network


def export(network: Network, config: Mapping[str, Any], directory: Path) -> None:
    """Write weights and configuration beside the tokenizer that is already there."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in named(network).items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n")
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, "pad_token_id": 0}) + "\n")


def named(network: Network) -> dict[str, torch.Tensor]:
    """The weights under Hugging Face's names, each expert by itself."""
    found = {"lm_head.weight": network.embed_tokens.weight.detach().clone()}  # SGLang's Qwen3-MoE ties nothing
    for name, tensor in network.state_dict().items():
        layer, _, stacked = name.partition(".mlp.")
        if stacked == "gate_up":
            for number, both in enumerate(tensor):
                gate, up = both.chunk(2)
                found[f"model.{layer}.mlp.experts.{number}.gate_proj.weight"] = gate.clone()
                found[f"model.{layer}.mlp.experts.{number}.up_proj.weight"] = up.clone()
        elif stacked == "down":
            for number, each in enumerate(tensor):
                found[f"model.{layer}.mlp.experts.{number}.down_proj.weight"] = each.clone()
        else:
            found[f"model.{name}"] = tensor
    return found
