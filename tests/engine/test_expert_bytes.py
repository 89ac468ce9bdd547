"""An expert's bytes are what its format holds, for every kind of quantised weights that SGLang
serves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oea_server.engine import routers
from oea_server.lab.recipes.commands import CONFIGS
from tests.engine import apart
from tests.engine.test_doctor_elsewhere import CLEAN

HIDDEN, WIDTH = 2048, 768
WEIGHTS = 3 * HIDDEN * WIDTH
GPT_OSS_WEIGHTS, GPT_OSS_BIASES = 3 * 512 * 256, 2 * 256 + 512
BY_CHANNEL = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": 8,
                "type": "float",
                "strategy": "channel",
                "symmetric": True,
                "dynamic": False,
            },
            "input_activations": {
                "num_bits": 8,
                "type": "float",
                "strategy": "token",
                "dynamic": True,
            },
        }
    },
}
INT4_BY_32 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": 4,
                "type": "int",
                "strategy": "group",
                "group_size": 32,
                "symmetric": True,
            },
            "input_activations": None,
        }
    },
    "ignore": ["lm_head", "re:.*self_attn.*"],
}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
GPTQ = {
    "quant_method": "gptq",
    "bits": 4,
    "group_size": 128,
    "desc_act": False,
    "sym": True,
    "lm_head": False,
}
BLOCKS = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
NVFP4 = {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16, "ignore": []}
W4A8 = {"quant_method": "w4afp8"}

CASES: dict[str, tuple[str, str, Any, list[str], int]] = {
    # weights, then scales, then zeros
    "bf16": ("h200", "qwen", None, [], 2 * WEIGHTS),
    "FP8 in blocks": ("h200", "qwen", BLOCKS, [], WEIGHTS + WEIGHTS // 128**2 * 4),
    "FP8 by tensor": (
        "h200",
        "qwen",
        {"quant_method": "fp8", "activation_scheme": "dynamic"},
        [],
        WEIGHTS + 3 * 4,
    ),
    "FP8 by channel": ("h200", "qwen", BY_CHANNEL, [], WEIGHTS + (2 * WIDTH + HIDDEN) * 4),
    "INT4, AWQ": ("h200", "qwen", AWQ, [], WEIGHTS // 2 + WEIGHTS // 128 * 2 + WEIGHTS // 128 // 2),
    "INT4, GPTQ": ("h200", "qwen", GPTQ, [], WEIGHTS // 2 + WEIGHTS // 128 * 2),
    "INT4, compressed": ("h200", "qwen", INT4_BY_32, [], WEIGHTS // 2 + WEIGHTS // 32 * 2),
    "W4A8": ("h200", "qwen", W4A8, [], WEIGHTS // 2 + WEIGHTS // 128 * 4),
    "MXFP4": (
        "h200",
        "gpt-oss",
        {"quant_method": "mxfp4"},
        [],
        GPT_OSS_WEIGHTS // 2 + GPT_OSS_WEIGHTS // 32,
    ),
    "NVFP4": (
        "b200",
        "qwen",
        NVFP4,
        ["--quantization", "modelopt_fp4"],
        WEIGHTS // 2 + WEIGHTS // 16 + 3 * 4,
    ),
    "NVFP4 by CUTLASS": (
        "b200",
        "qwen",
        NVFP4,
        ["--quantization", "modelopt_fp4", "--moe-runner-backend", "flashinfer_cutlass"],
        WEIGHTS // 2 + WEIGHTS // 16 + 3 * 4,
    ),
    "FP8 on two ranks": ("h200", "qwen", BLOCKS, ["--tp", "2"], WEIGHTS + WEIGHTS // 128**2 * 4),
    "bf16 on two ranks of experts": ("h200", "qwen", None, ["--tp", "2", "--ep", "2"], 2 * WEIGHTS),
}


def config_of(model: str, quantised: Any) -> dict[str, Any]:
    name = {"qwen": "qwen3-30b-a3b", "gpt-oss": "gpt-oss-120b-bf16"}[model]
    config: dict[str, Any] = json.loads((CONFIGS / f"{name}.json").read_text())
    config["num_hidden_layers"] = 2
    if model == "gpt-oss":
        config |= {
            "hidden_size": 512,
            "intermediate_size": 256,
            "layer_types": ["sliding_attention", "full_attention"],
        }
    return config if quantised is None else {**config, "quantization_config": quantised}


@pytest.fixture(scope="module")
def weighed() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for card in ("h200", "b200"):
        here = {name: case for name, case in CASES.items() if case[0] == card}
        asked = [
            [config_of(model, quantised), flags] for _, model, quantised, flags, _ in here.values()
        ]
        found |= dict(
            zip(
                here,
                apart.said("tests.engine.weigh_experts", card, given=asked, environment=CLEAN),
                strict=True,
            )
        )
    return found


@pytest.mark.parametrize("name", CASES)
def test_weights_scales_and_zeros_and_nothing_else(weighed: dict[str, Any], name: str) -> None:
    expected = CASES[name][-1]
    if CASES[name][1] == "gpt-oss":
        expected += GPT_OSS_BIASES * 2
    assert weighed[name] == [expected]


AS_READ = {
    name: CASES[name][-1]
    for name in (
        "bf16",
        "FP8 in blocks",
        "FP8 by channel",
        "NVFP4 by CUTLASS",
        "FP8 on two ranks",
        "bf16 on two ranks of experts",
    )
} | {"W4A8": WEIGHTS // 2 + WEIGHTS // 128 * 2}
"""As a kernel reads them: of W4A8 the scales are of 16 bits then, in the checkpoint they are of
32."""
MADE_BY_KERNELS = {
    "FP8 by tensor": "per_tensor_quant_fp8",
    "INT4, AWQ": "awq_marlin_repack",
    "INT4, GPTQ": "gptq_marlin_repack",
    "INT4, compressed": "gptq_marlin_repack",
    "MXFP4": "libcuda.so",
    "NVFP4": "device must be a cuda device",
}
"""Formats that SGLang makes ready by a kernel of a GPU, and what it says without one."""


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for card in ("h200", "b200"):
        here = {name: case for name, case in CASES.items() if case[0] == card}
        asked = [
            [few(config_of(model, quantised)), flags]
            for _, model, quantised, flags, _ in here.values()
        ]
        found |= dict(
            zip(
                here,
                apart.said("tests.engine.load_experts", card, given=asked, environment=CLEAN),
                strict=True,
            )
        )
    return found


def few(config: dict[str, Any]) -> dict[str, Any]:
    """Experts of the same size, but few of them: these have memory."""
    return config | {
        "num_experts": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "vocab_size": 2048,
    }


@pytest.mark.nightly
@pytest.mark.parametrize("name", AS_READ)
def test_what_a_kernel_reads_is_counted(loaded: dict[str, Any], name: str) -> None:
    assert loaded[name] == [AS_READ[name]]


@pytest.mark.nightly
@pytest.mark.parametrize("name", MADE_BY_KERNELS)
def test_other_formats_are_made_by_kernels_that_are_not_here(
    loaded: dict[str, Any], name: str
) -> None:
    assert MADE_BY_KERNELS[name] in loaded[name]


def test_no_format_is_left_out() -> None:
    assert AS_READ.keys() | MADE_BY_KERNELS.keys() == CASES.keys()


def test_what_a_kernel_reads_counts_once_weights_are_loaded() -> None:
    """In 4 bits as created; one kernel unpacks them to 16, one keeps them elsewhere and leaves the
    biases."""
    assert routers.loaded({0: 100, 1: 100, 2: 100}, {0: 400, 1: 10, 2: 98}) == {
        0: 400,
        1: 100,
        2: 98,
    }
