"""Runners that would choose experts inside their kernel: which of them take ours, on SGLang's own
classes."""

from __future__ import annotations

import ast
import inspect
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
import torch
from sglang.srt.layers.moe.topk import TopK
from sglang.srt.layers.moe.utils import MoeRunnerBackend, RoutingMethodType

from oea_server.engine import formats, materialise, options, routers

NEWEST = materialise.can()
needs_newest = pytest.mark.skipif(
    not NEWEST, reason=f"SGLang {version('sglang')} binds no runner to a TopK"
)


def model(runner: str, **given: Any) -> Any:
    """Two routers as Qwen3-MoE builds them, for experts that run by `runner`."""
    from sglang.srt.layers.moe import topk

    target = SimpleNamespace(in_speculative_scope=False)
    alone = SimpleNamespace(use_waterfill=False, num_shared_topk_slots=0)  # no shared experts
    with (
        mock.patch.object(
            topk, "get_model", return_value=SimpleNamespace(shared_experts=alone), create=True
        ),
        mock.patch.object(topk, "get_flags", return_value=SimpleNamespace(moe=target), create=True),
    ):
        built = [TopK(top_k=8, renormalize=True, layer_id=layer, **given) for layer in range(2)]
    for each in built if NEWEST else []:
        each.bind_runner_backend(
            MoeRunnerBackend(runner), routing_method_type=RoutingMethodType.Renormalize
        )
    return torch.nn.ModuleList(built)


def named(built: torch.nn.ModuleList) -> set[str]:
    modules: list[Any] = [each for each in built if isinstance(each, TopK)]
    return {module.topk_config.output_format.name for module in modules}


@needs_newest
def test_routers_choose_ahead_of_flashinfer_trtllm() -> None:
    built = model("flashinfer_trtllm")
    assert named(built) == {"BYPASSED"}
    assert "never materialises" in str(
        routers.problem_of(built[0].topk_config, 0, output=formats.of(built[0]))
    )
    assert materialise.materialise(built) == 2
    assert named(built) == {"STANDARD"}
    assert materialise.materialise(built) == 0


@needs_newest
@pytest.mark.parametrize("kind", [*materialise.WITHIN, "Fp8MoEMethod"])
def test_experts_whose_kernel_routes_by_logits_alone_keep_their_layers_router(kind: str) -> None:
    from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE

    experts = FusedMoE.__new__(FusedMoE)
    torch.nn.Module.__init__(experts)
    experts.layer_id = 1
    method = type(kind, (), {})()
    if "CompressedTensors" in kind:
        experts.scheme, experts.quant_method = method, object()
    else:
        experts.quant_method = method
    built = model("flashinfer_trtllm")
    built.append(experts)
    assert materialise.materialise(built) == (1 if kind in materialise.WITHIN else 2)


@needs_newest
def test_those_experts_are_sglangs() -> None:
    """Both say in their code that they take nothing else."""
    from sglang.srt.layers.quantization import modelopt_quant
    from sglang.srt.layers.quantization.compressed_tensors.schemes import CompressedTensorsMxInt4MoE

    assert "topk_output.router_logits" in inspect.getsource(CompressedTensorsMxInt4MoE)
    assert "cannot consume materialized routing" in inspect.getsource(
        modelopt_quant.ModelOptFp8MoEMethod
    )


def experts(kernel: str | None) -> torch.nn.Module:
    """A layer's MXFP4 experts, as SGLang picks their kernel by the GPU."""
    from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE

    made: Any = FusedMoE.__new__(FusedMoE)
    torch.nn.Module.__init__(made)
    made.layer_id, made.quant_method = 0, SimpleNamespace(_fi_kernel=kernel)
    return cast(torch.nn.Module, made)


@pytest.mark.parametrize(
    ("kernel", "found"),
    [
        (None, "BYPASSED"),
        ("trtllm_sm100", "BYPASSED"),
        ("cutlass_sm90", "STANDARD"),
        ("cutlass_sm120", "STANDARD"),
    ],
)
def test_flashinfer_mxfp4_takes_what_was_chosen_where_it_is_cutlass(
    kernel: str | None, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "of_server", lambda: MoeRunnerBackend("flashinfer_mxfp4"))
    topk = model("flashinfer_mxfp4")[0]
    assert formats.of(topk) == "BYPASSED"
    assert materialise.materialise(torch.nn.ModuleList([topk, experts(kernel)])) == (
        found == "STANDARD"
    )
    assert formats.of(topk) == found


def test_cutlass_takes_what_was_chosen_in_this_sglang() -> None:
    """And else chooses behind logits, before 0.5.23 without the layer's number, where no policy
    would be asked."""
    from sglang.srt.layers.moe.moe_runner import flashinfer_cutlass
    from sglang.srt.layers.quantization.mxfp4 import Mxfp4MoEMethod

    source = inspect.getsource(flashinfer_cutlass)
    assert (
        "if TopKOutputChecker.format_is_bypassed(topk_output):\n        topk_output ="
        " topk_output.to_standard()" in source
    )
    for name in materialise.CUTLASS:
        assert f'self._fi_kernel = "{name}"' in inspect.getsource(Mxfp4MoEMethod.__init__)


@pytest.mark.parametrize(
    ("runner", "fp4", "found"),
    [
        ("triton", False, "STANDARD"),
        ("marlin", False, "STANDARD"),
        ("triton_kernel", False, "TRITON_KERNEL"),
        ("flashinfer_mxfp4", False, "BYPASSED"),
        ("flashinfer_mxfp4", True, "STANDARD"),
    ],
)
def test_the_format_is_what_this_sglang_binds_or_asks_for_in_each_step(
    runner: str, fp4: bool, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "of_server", lambda: MoeRunnerBackend(runner))
    topk = model(runner, is_fp4_experts=fp4)[0]
    assert formats.of(topk) == found
    assert materialise.materialise(torch.nn.ModuleList([topk])) == 0


@pytest.mark.parametrize(
    ("card", "runner", "architecture", "refused"),
    [
        ((10, 0), "flashinfer_mxfp4", "GptOssForCausalLM", True),
        ((10, 3), "flashinfer_mxfp4", "GptOssForCausalLM", True),
        ((9, 0), "flashinfer_mxfp4", "GptOssForCausalLM", False),
        ((12, 0), "flashinfer_mxfp4", "GptOssForCausalLM", False),
        ((10, 0), "flashinfer_mxfp4", "DeepseekV4ForCausalLM", False),
        ((10, 0), "marlin", "GptOssForCausalLM", False),
    ],
)
def test_what_can_be_told_before_the_experts_are_built(
    card: tuple[int, int],
    runner: str,
    architecture: str,
    refused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: card)
    problem = materialise.problem_of(runner, "cuda", [architecture])
    assert (problem is not None) == refused


@pytest.mark.parametrize(("device", "refused"), [("cpu", True), ("cuda", False)])
def test_triton_kernel_needs_a_gpu(
    device: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    problem = materialise.problem_of("triton_kernel", device, ["GptOssForCausalLM"])
    assert (problem is not None) == refused


@needs_newest
def test_its_kernel_gets_the_ids_and_weights_that_were_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SGLang's own way from a STANDARD output to flashinfer's kernel for BF16; of others it says
    the same by source."""
    from contextlib import nullcontext

    import flashinfer.fused_moe
    from sglang.srt.layers.moe.moe_runner import flashinfer_trtllm as runner
    from sglang.srt.layers.moe.topk import StandardTopKOutput

    got: dict[str, Any] = {}

    def kernel(**given: Any) -> None:
        got.update(given)

    monkeypatch.setattr(flashinfer.fused_moe, "trtllm_bf16_routed_moe", kernel, raising=False)
    monkeypatch.setattr(runner, "use_symmetric_memory", lambda *_, **__: nullcontext())
    monkeypatch.setattr(runner, "get_parallel", lambda: SimpleNamespace(tp_group=None))
    monkeypatch.setattr(runner, "is_allocation_symmetric", lambda: False)
    monkeypatch.setattr(runner, "get_activation_type", lambda *_, **__: 0)
    monkeypatch.setattr(runner, "trtllm_moe_enable_pdl", lambda _: False)
    weights, ids = torch.rand(3, 8), torch.randint(0, 128, (3, 8), dtype=torch.int32)
    sent = SimpleNamespace(
        hidden_states=torch.zeros(3, 16),
        topk_output=StandardTopKOutput(weights, ids, torch.zeros(3, 128)),
    )
    info = runner.FlashInferTrtllmBf16MoeQuantInfo(torch.zeros(1), torch.zeros(1), 128, 0)
    config = SimpleNamespace(
        activation="silu",
        is_gated=True,
        top_k=8,
        routing_method_type=RoutingMethodType.Renormalize,
        routed_scaling_factor=None,
        num_local_experts=128,
        num_fused_shared_experts=0,
        intermediate_size_per_partition=16,
    )
    runner.fused_experts_none_to_flashinfer_trtllm_bf16(sent, info, config)
    assert torch.equal(got["topk_ids"][0], ids)
    assert torch.equal(got["topk_ids"][1], weights)
    assert got["routing_method_type"] == RoutingMethodType.TopK


@needs_newest
@pytest.mark.parametrize("kind", ["fp8", "fp4", "bf16"])
def test_sglang_takes_what_was_chosen_in_every_precision(kind: str) -> None:
    from sglang.srt.layers.moe.moe_runner import flashinfer_trtllm as runner

    function = getattr(runner, f"fused_experts_none_to_flashinfer_trtllm_{kind}")
    source = ast.unparse(ast.parse(inspect.getsource(function)))
    assert "not use_routed_topk and TopKOutputChecker.format_is_standard(" in source


@pytest.mark.parametrize(
    ("installed", "takes"), [("0.5.17", False), ("0.5.22", False), ("0.5.23", True)]
)
def test_older_sglang_has_it_by_another_name(
    installed: str, takes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialise, "version", lambda _: installed)
    (conflict,) = [each for each in options.CONFLICTS if each.option == "moe_runner_backend"]
    assert conflict.clashes("flashinfer_trtllm") is not takes
    assert not conflict.clashes("flashinfer_trtllm_routed")
    assert "flashinfer_trtllm_routed" in conflict.instead


def test_a_model_of_other_layers_is_left_alone() -> None:
    assert materialise.materialise(torch.nn.Linear(2, 2)) == 0
