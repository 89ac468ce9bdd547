"""The trained network as a Hugging Face checkpoint in bfloat16, and how it came about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from oea_server.lab.demo.build import write_config
from oea_server.lab.demo.training.loop import Recipe, windows
from oea_server.lab.demo.training.network import Network
from oea_server.lab.demo.training.tokens import Data
from oea_server.lab.records import record


def export(network: Network, config: Mapping[str, Any], directory: Path) -> None:
    """Write weights and configuration beside the tokenizer that is already there; selection biases
    stay float32."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: (
            (tensor if name.endswith("correction_bias") else tensor.to(torch.bfloat16)).contiguous()
        )
        for name, tensor in named(network).items()
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    write_config(directory, config)


def named(network: Network) -> dict[str, torch.Tensor]:
    """The weights under Hugging Face's names, each expert by itself; what looks ahead is one layer
    more."""
    # SGLang's Qwen3-MoE ties nothing
    found = {"lm_head.weight": network.embed_tokens.weight.detach().clone()}
    last = f"layers.{len(network.layers)}."
    for kept, tensor in network.state_dict().items():
        name = f"model.{kept.replace('ahead.layer.', last).replace('ahead.', last)}"
        block, _, part = name.removesuffix(".weight").rpartition(".")
        stacked = tensor.dim() == 3
        for number, each in enumerate(tensor if stacked else tensor[None]):
            owner = f"{block}.experts.{number}" if stacked else block
            if part == "gate_up":
                gate, up = each.chunk(2)
                found |= {
                    f"{owner}.gate_proj.weight": gate.clone(),
                    f"{owner}.up_proj.weight": up.clone(),
                }
            elif part == "down":
                found[f"{owner}.down_proj.weight"] = each.clone()
            else:
                found[name] = each
    return found


def story(recipe: Recipe, data: Data, curve: Path) -> dict[str, Any]:
    """The recipe, the corpus, the curve, and beside the last held-out loss that of a unigram model;
    nats per token."""
    points = [json.loads(line) for line in curve.read_text().splitlines()]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    counts = torch.bincount(
        torch.from_numpy(data.training.astype("int64")), minlength=int(data.held_out.max()) + 1
    )
    unigram = ((counts + 1) / (counts + 1).sum()).log()
    return {
        "recipe": recipe._asdict(),
        "corpus": data.manifest,
        "held_out": points[-1]["held_out"],
        "unigram_held_out": -unigram[torch.from_numpy(data.held_out.astype("int64"))].mean().item(),
        "machine": record.machine(device),
        "versions": record.versions(),
        "curve": points,
    }


@torch.no_grad()
def held_out(model: Path, data: Data, length: int) -> float:
    """Held-out loss, nats per token, of an exported model on the windows that a run in training is
    judged by."""
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    logits = ((network(ids[:, :-1]).logits, ids[:, 1:]) for ids in windows(data.held_out, length))
    losses = [
        torch.nn.functional.cross_entropy(each.flatten(0, 1), right.flatten())
        for each, right in logits
    ]
    return torch.stack(losses).mean().item()
