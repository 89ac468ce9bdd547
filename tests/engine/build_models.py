"""Asks `serve` and `doctor` of models, then builds tiny models as a scheduler does: one import of
SGLang for all.

Run: python -m tests.engine.build_models, with a JSON list of command lines as its input. Prints, as
JSON, what was said of each command line (`compare_commands`), what our code says of each model of
`tests.engine.tiny`, what a checkpoint of our trainer leaves unfilled of SGLang's GLM-4.5, and which
modules of the CPU platform all that took."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from oea_server_demo import MODEL

from oea_server.engine import model_card, routers, runtime
from oea_server.lab.demo.training import export
from oea_server.lab.demo.training.network import Network
from tests.engine import compare_commands, tiny
from tests.unit.test_training_glm4_moe import TINY as GLM4_MOE

GLM4_MOE_CLASSES = "Glm4MoeForCausalLM", "Glm4MoeForCausalLMNextN"


def start() -> Any:
    """One rank of a group of one, with the demo's arguments."""
    from sglang.srt.distributed import bootstrap
    from sglang.srt.layers.moe.utils import initialize_moe_config
    from sglang.srt.runtime_context import SpawnRanks, publish
    from sglang.srt.server_args import prepare_server_args

    server_args = prepare_server_args(
        ["--model-path", str(MODEL), "--moe-runner-backend", "triton", "--log-level", "error"]
    )
    server_args.resolve_once()
    publish(server_args, role="scheduler", ranks=SpawnRanks(world_rank=0, dp_rank=None, gpu_id=0))
    folder = tempfile.mkdtemp()
    bootstrap._init_parallel_groups(
        backend="gloo", dist_init_method=f"file://{folder}/store", server_args=server_args, gpu_id=0
    )
    initialize_moe_config()
    return server_args


def build(config: tiny.Config, cuda: bool = False) -> torch.nn.Module:
    """A model, its weights left as they are; with `cuda`, as Qwen2-MoE's block decides on a GPU."""
    from sglang.srt.configs.load_config import LoadConfig
    from sglang.srt.configs.model_config import ModelConfig
    from sglang.srt.model_loader.loader import _initialize_model

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        built = ModelConfig(folder, dtype="float32")
        # Qwen3-Next's linear attention asks for the device by itself
        stack.enter_context(mock.patch("torch.cuda.current_device", return_value="cpu"))
        if cuda:
            stack.enter_context(mock.patch("sglang.srt.models.qwen2_moe._is_cuda", True))
        model: torch.nn.Module = _initialize_model(built, LoadConfig())
        return model


def described(config: tiny.Config, cuda: bool = False) -> dict[str, Any]:
    from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE

    model = build(config, cuda)
    found = routers.inspect(model)
    return {
        "card": list(model_card.of(config)),
        "problems": sorted({router.problem or "" for router in found}),
        "layers": [router.layer for router in found],
        "k": min((router.k for router in found if router.problem is None), default=0),
        "fused": [module.num_experts for module in model.modules() if isinstance(module, FusedMoE)],
        "num_experts": routers.num_experts(model),
        "expert_bytes": routers.expert_bytes(model),
    }


def unfilled(architecture: str) -> list[str]:
    """Which parameters of SGLang's class a checkpoint of ours leaves as they were."""
    from safetensors.torch import load_file

    model: Any = build({**GLM4_MOE, "architectures": [architecture]})
    for parameter in model.parameters():
        parameter.data.fill_(torch.nan)
    with tempfile.TemporaryDirectory() as folder:
        export.export(Network(GLM4_MOE), GLM4_MOE, Path(folder))
        model.load_weights(iter(load_file(f"{folder}/model.safetensors").items()))
    return [name for name, parameter in model.named_parameters() if parameter.isnan().any()]


def main() -> None:
    answers = [
        [
            compare_commands.served(argv),
            compare_commands.served(argv, plain=True),
            *compare_commands.examined(argv),
        ]
        for argv in json.load(sys.stdin)
    ]
    runtime.current = None  # what is built is not taken over
    start()
    configs = {
        **tiny.HANDLED,
        **tiny.OTHERS,
        **{name: config for name, (config, _) in tiny.REFUSED.items()},
    }
    found: dict[str, Any] = {}
    for name in [*configs, "qwen3_next@cuda"]:
        kind, _, device = name.partition("@")
        try:
            found[name] = described(configs[kind], device == "cuda")
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"}
    left = {architecture: unfilled(architecture) for architecture in GLM4_MOE_CLASSES}
    platform = [name for name in sys.modules if name.startswith("oea_server.cpu.")]
    print("\n" + json.dumps([answers, found, left, platform]))


if __name__ == "__main__":
    main()
