"""A LoRA adapter of the demo model's attention, big enough to change what it says."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from oea_server.lab.demo.build import CONFIG

RANK = 4
HIDDEN, HEAD = int(str(CONFIG["hidden_size"])), int(str(CONFIG["head_dim"]))
HEADS, KV_HEADS = int(str(CONFIG["num_attention_heads"])), int(str(CONFIG["num_key_value_heads"]))
SHAPES = {
    "q_proj": (HIDDEN, HEADS * HEAD),
    "k_proj": (HIDDEN, KV_HEADS * HEAD),
    "v_proj": (HIDDEN, KV_HEADS * HEAD),
    "o_proj": (HEADS * HEAD, HIDDEN),
}
"""What each takes and gives."""


def write_adapter(folder: Path) -> Path:
    """As PEFT saves one."""
    random, weights = torch.Generator().manual_seed(7), {}
    for layer in range(int(str(CONFIG["num_hidden_layers"]))):
        for name, (takes, gives) in SHAPES.items():
            at = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{at}.lora_A.weight"] = torch.randn(RANK, takes, generator=random) / takes**0.5
            weights[f"{at}.lora_B.weight"] = torch.randn(gives, RANK, generator=random) / gives**0.5
    save_file(weights, folder / "adapter_model.safetensors")
    said = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": list(SHAPES),
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder
