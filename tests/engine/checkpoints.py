"""Makes the checkpoints of `tiny_checkpoints`: random weights in float32, with the demo's
tokenizer."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from oea_server_demo import MODEL

from tests.engine import tiny_by_hand, tiny_checkpoints
from tests.engine.tiny_by_hand import Handmade
from tests.engine.tiny_checkpoints import SIZES, Recipe

FAMILIES: dict[str, Recipe | Handmade] = {**tiny_checkpoints.FAMILIES, **tiny_by_hand.FAMILIES}
EXPERTS = re.compile(r"\.experts\.|block_sparse_moe\.input_linear|\.moe\.(gate|up|down)_proj\.")
"""In the names of experts' weights."""


OWN_CODE = (
    "from transformers import PretrainedConfig\n\n\nclass TinyConfig(PretrainedConfig):\n    pass\n"
)
"""As authors ship it: what reads a config.json whose model transformers does not know."""


def make(folder: Path, family: Recipe | Handmade) -> None:
    """Weights as large as keeps activations at one size, so that each layer, expert and bias
    tells."""
    torch.manual_seed(0)
    if isinstance(family, Handmade):
        by_hand(folder, family)
    else:
        by_transformers(folder, family)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MODEL / name, folder)


def by_transformers(folder: Path, recipe: Recipe) -> None:
    import transformers

    vocabulary = json.loads((MODEL / "config.json").read_text())["vocab_size"]
    config = getattr(transformers, f"{recipe.kind}Config")(
        **{**SIZES, "vocab_size": vocabulary, **recipe.fields}
    )
    model = model_class(recipe.kind)(config).float()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            fill(name, tensor)
    model.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **recipe.written}))


def by_hand(folder: Path, family: Handmade) -> None:
    from safetensors.torch import save_file

    weights = {name: torch.ones(shape) for name, shape in family.shapes.items()}
    for name, tensor in weights.items():
        fill(name, tensor)
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(family.config))
    (folder / "configuration_tiny.py").write_text(OWN_CODE)


@torch.no_grad()
def fill(name: str, tensor: torch.Tensor) -> None:
    """In place; the weights of norms stay as they are."""
    if tensor.dim() > 1:
        tensor.normal_(std=tensor.shape[-1] ** -0.5)
    elif "bias" in name or "sinks" in name:
        tensor.normal_(std=0.1)


def model_class(kind: str) -> Any:
    import transformers

    return getattr(transformers, f"{kind.removesuffix('Text')}ForCausalLM")


def moe_layers(folder: Path) -> list[int]:
    """The layers of a checkpoint that have experts, by its weights."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as weights:
        names = [name for name in weights.keys() if EXPERTS.search(name)]  # noqa: SIM118
    return sorted(
        {int(found[1]) for name in names if (found := re.search(r"layers\.(\d+)\.", name))}
    )


def layers(folder: Path) -> int:
    """How many layers SGLang's routing replays have: all of a model."""
    config = json.loads((folder / "config.json").read_text())
    return int(config.get("num_hidden_layers") or config["num_layers"])
