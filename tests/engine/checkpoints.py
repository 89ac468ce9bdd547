"""Makes the checkpoints of `tiny_checkpoints`: random weights in float32, with the demo's tokenizer."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from oea_server_demo import MODEL

from tests.engine.tiny_checkpoints import SIZES, Recipe

EXPERTS = re.compile(r"\.experts\.|block_sparse_moe\.input_linear")
"""In the names of experts' weights."""


def make(folder: Path, recipe: Recipe) -> None:
    """Weights as large as keeps activations at one size, so that each layer, expert and bias tells."""
    import transformers

    torch.manual_seed(0)
    vocabulary = json.loads((MODEL / "config.json").read_text())["vocab_size"]
    config = getattr(transformers, f"{recipe.kind}Config")(**{**SIZES, "vocab_size": vocabulary, **recipe.fields})
    model = model_class(recipe.kind)(config).float()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            if tensor.dim() > 1:
                tensor.normal_(std=tensor.shape[-1] ** -0.5)
            elif "bias" in name:
                tensor.normal_(std=0.1)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MODEL / name, folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **recipe.written}))


def model_class(kind: str) -> Any:
    import transformers

    return getattr(transformers, f"{kind.removesuffix('Text')}ForCausalLM")


def moe_layers(folder: Path) -> list[int]:
    """The layers of a checkpoint that have experts, by its weights."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as weights:
        names = [name for name in weights.keys() if EXPERTS.search(name)]  # noqa: SIM118
    return sorted({int(found[1]) for name in names if (found := re.search(r"layers\.(\d+)\.", name))})


def layers(folder: Path) -> int:
    """How many layers SGLang's routing replays have: all of a model."""
    config = json.loads((folder / "config.json").read_text())
    return int(config.get("num_hidden_layers") or config["num_layers"])
