"""gpt-oss' runner on Hopper: a choice of ours reaches SGLang's experts as one of its own does.

SGLang's own classes, its Triton kernels in Triton's interpreter; of the experts the matrix product
is plain torch."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from sglang.srt.layers.moe import topk as theirs

from oea_server.engine import formats, routers, rules, runtime, triton_experts
from oea_server.engine.routers import Router
from oea_server.engine.rules import Source
from oea_server.engine.step import Step
from oea_server.routing import Policy, host
from oea_server.settings import Settings

OLDEST = version("sglang") == "0.5.17"
N, K, LAYER = 32, 4, 5
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter of 0.5.17 does not run these kernels, so there the library's own plain
    torch does."""
    if OLDEST:
        names = ("topk", "tensor", "tensor_details.bitmatrix", "tensor_details.ragged_tensor")
        library, tensor, bitmatrix, ragged_tensor = (
            import_module(f"triton_kernels.{name}") for name in names
        )

        histc = torch.histc  # which takes no integers on a CPU
        monkeypatch.setattr(torch, "histc", lambda ids, **given: histc(ids.float(), **given))
        monkeypatch.setattr(theirs, "triton_kernels_topk", library.topk_torch)
        monkeypatch.setattr(
            tensor, "make_bitmatrix_metadata", bitmatrix.make_bitmatrix_metadata_torch
        )
        monkeypatch.setattr(
            theirs, "make_ragged_tensor_metadata", ragged_tensor.make_ragged_tensor_metadata_torch
        )


def built(**given: Any) -> Any:
    """A router as gpt-oss builds it, for experts that run by `triton_kernel`."""
    from sglang.srt.layers.moe.utils import MoeRunnerBackend

    target = SimpleNamespace(moe=SimpleNamespace(in_speculative_scope=False))
    alone = SimpleNamespace(
        shared_experts=SimpleNamespace(use_waterfill=False, num_shared_topk_slots=0)
    )
    with (
        mock.patch.object(theirs, "get_flags", return_value=target, create=True),
        mock.patch.object(theirs, "get_model", return_value=alone, create=True),
    ):
        made: Any = theirs.TopK(top_k=K, renormalize=True, layer_id=LAYER, **given)
    if hasattr(made, "bind_runner_backend"):
        made.bind_runner_backend(MoeRunnerBackend("triton_kernel"))
    return made


@pytest.fixture
def topk(monkeypatch: pytest.MonkeyPatch) -> Any:
    from sglang.srt.layers.moe.utils import MoeRunnerBackend

    monkeypatch.setattr(formats, "of_server", lambda: MoeRunnerBackend("triton_kernel"))
    monkeypatch.setattr(
        theirs, "get_moe_runner_backend", lambda: MoeRunnerBackend("triton_kernel"), raising=False
    )
    made = built()
    nothing = (None, None)
    monkeypatch.setattr(made, "_resolve_routing_inputs", lambda *_: nothing, raising=False)
    return made


@pytest.fixture
def now(topk: Any) -> Iterator[runtime.Runtime]:
    before, here = runtime.current, runtime.Runtime(Settings(k0="1", min_batch=2))
    assert here.adopt([Router(LAYER, K, True, None, Source(topk.topk_config))], N, CPU) == []
    here.start_counting(N, 1, CPU)
    runtime.current = here
    yield here
    runtime.current = before


def logits(rows: int) -> torch.Tensor:
    return torch.randn(rows, N, generator=torch.Generator().manual_seed(rows)).bfloat16()


def sglangs(topk: Any, given: torch.Tensor) -> Any:
    return type(topk).forward_cuda(topk, torch.zeros(len(given), 8), given)


def ours(topk: Any, given: torch.Tensor) -> Any:
    return triton_experts.around_forward_cuda(
        type(topk).forward_cuda, topk, torch.zeros(len(given), 8), given
    )


def parts(chosen: Any) -> dict[str, torch.Tensor]:
    """What the experts read of a `TritonKernelTopKOutput`."""
    if OLDEST:
        data, gather, scatter = chosen
        metadata, weights = data.expt_data, data.gate_scal
        orders = {f"{name} {kind}": getattr(each, f"{kind}_indx") for kind in ("src", "dst")
                  for name, each in (("gather", gather), ("scatter", scatter))}  # fmt: skip
        assert (data.n_expts_tot, data.n_expts_act) == (N, K)
    else:
        metadata, gather, scatter, weights, k = chosen
        orders = {"gather": gather, "scatter": scatter}
        assert k == K
    sizes = {"sizes": metadata.slice_sizes, "offsets": metadata.slice_offs}
    blocks = {"blocks": metadata.block_offs_data, "schedule": metadata.block_schedule_data}
    return {**sizes, **blocks, **orders, "weights": weights}


@pytest.mark.parametrize("rows", [1, 9, 40])
def test_a_choice_of_sglangs_is_sorted_as_sglang_sorts_it(topk: Any, rows: int) -> None:
    given = logits(rows)
    expected = parts(sglangs(topk, given))
    weights, ids, _ = host.route(given, Policy.vanilla(), rules.router(K, True))
    if OLDEST:  # a row's experts by their number, not best first
        ids, best_first = ids.sort()
        weights = weights.gather(1, best_first)
    found = parts(
        triton_experts.sorted_by_expert(
            weights.bfloat16(), ids, torch.ones(rows, dtype=torch.bool), N
        )
    )
    # the interpreter cuts off what a GPU rounds
    torch.testing.assert_close(found.pop("weights"), expected.pop("weights"), rtol=2**-7, atol=0)
    for name, each in expected.items():
        assert torch.equal(found[name].long(), each.long()), name
    assert torch.equal(triton_experts.ids_of(sglangs(topk, given), rows, K), ids)


@pytest.mark.skipif(OLDEST, reason="SGLang 0.5.17 routes rows that are no tokens")
def test_rows_that_are_no_tokens_are_left_out_as_sglang_leaves_them_out(topk: Any) -> None:
    given = logits(9)
    real = torch.arange(9) < 7
    theirs_of = theirs.routing(given, K, n_rows=torch.tensor(7))
    chosen = host.route(given, Policy.vanilla(), rules.router(K, True))
    found = triton_experts.order(chosen.ids, real, N)
    assert torch.equal(found.sizes, theirs_of[0].slice_sizes)
    assert torch.equal(found.slots, theirs_of[2])
    ids = triton_experts.ids_of(
        triton_experts.sorted_by_expert(chosen.weights, chosen.ids, real, N), 9, K
    )
    assert torch.equal(ids, chosen.ids.where(real[:, None], -1))


def test_a_decode_step_is_routed_and_counted(now: runtime.Runtime, topk: Any) -> None:
    given = logits(9)
    with now.decoding(Step(9, counted=True)):
        chosen = ours(topk, given)
    expected = host.route(given, now.policy, now.routers[LAYER].rule)
    assert expected.pool.sum() < len(
        set(host.route(given, Policy.vanilla(), now.routers[LAYER].rule).ids.flatten())
    )
    ids = triton_experts.ids_of(chosen, 9, K)
    assert torch.equal(ids.sort().values, expected.ids.sort().values)
    assert now.tally is not None
    assert now.tally.unique[0].nonzero().flatten().tolist() == [int(expected.pool.sum())]


def test_what_the_policy_leaves_to_the_model_is_sglangs_to_the_bit_and_counted(
    now: runtime.Runtime, topk: Any
) -> None:
    given = logits(1)
    outside = parts(ours(topk, given))
    with now.decoding(Step(1, counted=True)):
        inside = parts(ours(topk, given))
    for name, each in parts(sglangs(topk, given)).items():
        assert torch.equal(outside[name], each)
        assert torch.equal(inside[name], each)
    assert now.tally is not None
    assert now.tally.unique[0].nonzero().flatten().tolist() == [K]


@pytest.mark.skipif(OLDEST, reason="the experts of 0.5.17 ask for a GPU by name")
@pytest.mark.parametrize("policy", [Policy.pruned(1), Policy.oea(2), Policy.oea(2, mix=0.0)])
def test_sglangs_experts_compute_what_was_chosen(
    monkeypatch: pytest.MonkeyPatch, policy: Policy
) -> None:
    """Unused slots too, which have a row's best expert once more, with weight 0."""
    # which want the driver of a GPU
    libraries = SimpleNamespace(silu_and_mul=None, gelu_and_mul=None)
    monkeypatch.setitem(sys.modules, "sgl_kernel", libraries)  # type: ignore[arg-type]
    from sglang.srt.layers.moe.fused_moe_triton import triton_kernels_moe as experts

    def matmul(
        rows: Any, weights: Any, bias: Any, *, a_ragged_metadata: Any, **given: Any
    ) -> torch.Tensor:
        """`triton_kernels.matmul` as its own `matmul_torch` says it: rows by expert, then back to
        their slots."""
        gather, scatter, gammas = (
            given.get(name) for name in ("gather_indx", "scatter_indx", "gammas")
        )
        ends = a_ragged_metadata.slice_offs.tolist()
        found = torch.full((len(rows if gather is None else gather), weights.shape[-1]), torch.nan)
        for expert, (start, end) in enumerate(itertools.pairwise(ends)):
            some = rows[start:end] if gather is None else rows[gather[start:end]]
            found[start:end] = some.float() @ weights[expert].float()
        if gammas is not None:
            found *= gammas[:, None]
        if scatter is None:
            return found.bfloat16()
        out = torch.full_like(found, torch.nan)
        out[scatter[: ends[-1]].long()] = found[: ends[-1]]
        return out

    def silu_and_mul(both: torch.Tensor, out: torch.Tensor) -> None:
        gate, up = both.float().chunk(2, dim=-1)
        out.copy_(torch.nn.functional.silu(gate) * up)

    monkeypatch.setattr(experts, "matmul", matmul)
    monkeypatch.setattr(experts, "silu_and_mul", silu_and_mul, raising=False)
    rows, hidden, width = 6, 16, 8
    dice = torch.Generator().manual_seed(3)
    states = torch.randn(rows, hidden, generator=dice).bfloat16()
    w1 = torch.randn(N, hidden, 2 * width, generator=dice).bfloat16()
    w2 = torch.randn(N, width, hidden, generator=dice).bfloat16()
    chosen = host.route(logits(rows), policy, rules.router(K, True), num_real=5)
    real = torch.arange(rows) < 5
    out = triton_experts.sorted_by_expert(chosen.weights, chosen.ids, real, N)
    found = experts.triton_kernel_fused_experts(states, w1, w2, *out).view(rows, K, hidden).sum(1)
    for row in range(5):
        expected = torch.zeros(hidden)
        for weight, expert in zip(chosen.weights[row], chosen.ids[row].tolist(), strict=True):
            gate, up = (states[row].float() @ w1[expert].float()).bfloat16().float().chunk(2)
            expected += weight * (
                (torch.nn.functional.silu(gate) * up).bfloat16().float() @ w2[expert].float()
            )
        torch.testing.assert_close(found[row], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("given", "handled"),
    [
        ({}, True),
        ({"correction_bias": torch.zeros(N)}, False),
        ({"scoring_func": "sigmoid"}, False),
        ({"use_grouped_topk": True, "num_expert_group": 1, "topk_group": 1}, False),
        ({"routed_scaling_factor": 2.0, "apply_routed_scaling_factor_on_output": True}, False),
        ({"custom_routing_function": len}, False),
    ],
)
def test_only_the_router_that_this_kernel_computes_is_ours(
    given: dict[str, Any], handled: bool
) -> None:
    problem = routers.problem_of(built(**given).topk_config, LAYER, output=formats.TRITON_KERNEL)
    assert (problem is None) == handled
