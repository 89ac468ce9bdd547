"""Bytes of an expert once SGLang has made its weights what a kernel reads, on a card that is not
here.

The model is built with memory, on this CPU, and each layer's own `process_weights_after_loading` is
run: what launches a kernel there says so. Run: python -m tests.engine.load_experts CARD, with a
JSON list of [config, flags] as its input. Prints a JSON list: the bytes of each, by layer, or the
error."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from oea_server.absent import device, question
from oea_server.absent.cards import CARDS


def with_memory(asked: Any) -> Any:
    """In place of `device._off_gpu`, which has no memory for a GPU's tensors."""
    on_gpu = type(asked) is int or str(asked).partition(":")[0] == "cuda"
    return torch.device("cpu") if on_gpu else asked


def process(layer: Any) -> None:
    for parameter in layer.parameters():
        parameter.data.zero_()
    layer.quant_method.process_weights_after_loading(layer)


def main() -> None:
    card = CARDS[sys.argv[1]]
    device.pretend(card)
    from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE

    from oea_server.absent import building, judgement, ranks
    from oea_server.engine import routers

    found: list[Any] = []

    def loaded(settings: Any, server_args: Any) -> Any:
        with ranks.alone(server_args), mock.patch.object(device, "_off_gpu", with_memory):
            model = building.build(server_args)
            created = routers.expert_bytes(model)
            with device.OnMeta():
                for layer in model.modules():
                    if isinstance(layer, FusedMoE):
                        process(layer)
            found.append(sorted(set(routers.loaded(created, routers.expert_bytes(model)).values())))
        return judgement.refused("loaded")

    judgement.built = loaded
    for config, flags in json.load(sys.stdin):
        before = len(found)
        with tempfile.TemporaryDirectory() as folder:
            try:
                said = judgement.answer(
                    question.Question(card, flags, config, str(Path(folder)), [])
                ).said
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
        if len(found) == before:
            found.append(said)
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
