from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from oea_server.cpu import experts as cpu_experts
from oea_server.cpu import unfilled, zentorch
from oea_server.cpu.experts import Experts, after_loading, by_loop, open_experts
from oea_server.cpu.loop import run_experts
from oea_server.engine import guard

Open = Callable[[torch.Tensor, torch.Tensor], Experts]


def loop(w13: torch.Tensor, w2: torch.Tensor) -> Experts:
    return by_loop(w13, w2, "asked for")


@pytest.fixture(params=["loop", "zentorch"])
def opened(request: pytest.FixtureRequest) -> Open:
    """Both ways to run experts; the weights are the caller's to keep, as zentorch re-orders
    them."""
    if request.param == "loop":
        return loop
    if why := zentorch.problem():
        pytest.skip(why)
    return lambda w13, w2: open_experts(w13.clone(), w2.clone())


def slow(
    x: torch.Tensor, w13: torch.Tensor, w2: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    """One token and one expert at a time, in float64."""
    out = torch.zeros(x.shape, dtype=torch.float64)
    for i in range(len(x)):
        for weight, expert in zip(weights[i].tolist(), ids[i].tolist(), strict=True):
            if expert >= 0 and weight:
                gate, up = (w13[expert].double() @ x[i].double()).chunk(2)
                out[i] += weight * (w2[expert].double() @ (F.silu(gate) * up))
    return out


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(
    ("experts", "hidden", "inner"), [(12, 32, 24), (7, 36, 100), (16, 256, 128)]
)
def test_agrees_with_one_expert_at_a_time(
    opened: Open, dtype: torch.dtype, tolerance: float, experts: int, hidden: int, inner: int
) -> None:
    torch.manual_seed(experts)
    k = 4
    w13 = (torch.randn(experts, 2 * inner, hidden) / hidden**0.5).to(dtype)
    w2 = (torch.randn(experts, hidden, inner) / inner**0.5).to(dtype)
    layer = opened(w13, w2)
    for batch in (0, 1, 3, 16, 37, 300, 3):
        x = torch.randn(batch, hidden).to(dtype)
        weights = torch.rand(batch, k)
        ids = torch.randint(-1, experts, (batch, k), dtype=torch.int32)
        weights[torch.rand(batch, k) < 0.2] = 0.0
        if batch == 16:  # nothing unused: the short way
            weights, ids = weights + 0.1, ids.clamp(min=0)
        ours = layer.run(x, weights, ids)
        assert ours.dtype == dtype
        expected = slow(x, w13, w2, weights, ids)
        assert (ours.double() - expected).norm() <= tolerance * max(1.0, float(expected.norm()))


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("k", [1, 3])
def test_a_step_with_a_single_expert(opened: Open, batch: int, k: int) -> None:
    """Which zentorch itself gets wrong, without a word."""
    torch.manual_seed(0)
    w13, w2 = torch.randn(6, 128, 64), torch.randn(6, 64, 64)
    x, weights, ids = (
        torch.randn(batch, 64),
        torch.rand(batch, k),
        torch.full((batch, k), 4, dtype=torch.int32),
    )
    expected = slow(x, w13, w2, weights, ids)
    assert (
        opened(w13, w2).run(x, weights, ids).double() - expected
    ).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize(("weights", "ids"), [([[0.0, 0.0]], [[3, 1]]), ([[0.5, 0.5]], [[-1, -1]])])
def test_nothing_to_do_reads_nothing(
    opened: Open, weights: list[list[float]], ids: list[list[int]]
) -> None:
    poison = torch.full((4, 8, 6), float("nan"))
    layer = loop(poison, poison[:, :6, :4])
    if opened is not loop:
        torch.manual_seed(0)
        layer = opened(torch.randn(4, 8, 6), torch.randn(4, 6, 4))
    out = layer.run(torch.ones(1, 6), torch.tensor(weights), torch.tensor(ids, dtype=torch.int32))
    assert torch.equal(out, torch.zeros(1, 6))


def test_unused_slots_and_other_ranks_experts_are_not_read() -> None:
    torch.manual_seed(0)
    w13, w2 = torch.randn(4, 8, 6), torch.randn(4, 6, 4)
    w13[2:], w2[2:] = float("nan"), float("nan")
    x = torch.randn(2, 6)
    weights = torch.tensor([[0.7, 0.3, 0.0], [1.0, 0.5, 0.0]])
    ids = torch.tensor([[0, 1, 3], [1, -1, 2]])
    assert not loop(w13, w2).run(x, weights, ids).isnan().any()
    pairs = zentorch.used_pairs(weights, ids.int(), 4)
    assert pairs.tokens.tolist() == [0, 0, 1]
    assert pairs.ids.tolist() == [[0], [1], [1]]


def test_weights_that_somebody_else_writes_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    if why := zentorch.problem():
        pytest.skip(why)
    monkeypatch.setattr(zentorch, "LOOK_EVERY", 0.0)
    w13, w2 = torch.randn(4, 128, 64), torch.randn(4, 64, 64)
    layer = open_experts(w13, w2)
    step = torch.randn(2, 64), torch.ones(2, 2), torch.tensor([[0, 1], [2, 3]], dtype=torch.int32)
    layer.run(*step)
    w2[1].copy_(torch.randn(64, 64))
    with pytest.raises(RuntimeError, match="restart the server"):
        layer.run(*step)


def test_opening_while_the_default_is_bfloat16() -> None:
    """As it is while SGLang loads a model."""
    w13, w2 = torch.randn(4, 128, 64).bfloat16(), torch.randn(4, 64, 64).bfloat16()
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.bfloat16)
        open_experts(w13, w2)
    finally:
        torch.set_default_dtype(before)


def test_memory_that_is_used_again_is_not_taken_for_the_layer_before() -> None:
    """Zentorch remembers weights by address; benchmarks open one layer after the other."""
    if why := zentorch.problem():
        pytest.skip(why)
    for seed in range(4):
        torch.manual_seed(seed)
        w13, w2 = torch.randn(4, 128, 64), torch.randn(4, 64, 64)
        kept = w13.clone(), w2.clone()
        x, weights, ids = (
            torch.randn(5, 64),
            torch.rand(5, 2),
            torch.randint(0, 4, (5, 2), dtype=torch.int32),
        )
        ours = open_experts(w13, w2).run(x, weights, ids).double()
        expected = slow(x, *kept, weights, ids)
        assert (ours - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        (torch.randn(4, 8, 6, dtype=torch.float16), "float16"),
        (torch.randn(1, 8, 6), "a single expert"),
    ],
)
def test_what_zentorch_does_not_take_runs_in_the_loop(weights: torch.Tensor, why: str) -> None:
    layer = open_experts(weights, weights[:, :6, :4])
    assert layer.kind == "loop"
    assert why in layer.why or layer.why == zentorch.problem()


def test_a_machine_without_zentorch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zentorch, "problem", lambda: "zentorch is not installed")
    layer = open_experts(torch.randn(4, 8, 6), torch.randn(4, 6, 4))
    assert (layer.kind, layer.why) == ("loop", "zentorch is not installed")


def test_a_layer_whose_weights_are_loaded_again_goes_on_right() -> None:
    """`/update_weights_from_disk` loads into the same tensors and ends with the same call."""
    torch.manual_seed(0)
    config = SimpleNamespace(activation="silu", apply_router_weight_on_input=False)
    w13, w2 = (
        torch.nn.Parameter(torch.randn(4, 128, 64)),
        torch.nn.Parameter(torch.randn(4, 64, 64)),
    )
    layer: Any = SimpleNamespace(moe_runner_config=config, w13_weight=w13, w2_weight=w2, layer_id=0)
    step = (
        torch.randn(3, 64),
        torch.rand(3, 2),
        torch.tensor([[0, 1], [2, 3], [1, 2]], dtype=torch.int32),
    )
    for _ in range(3):
        with torch.no_grad():
            w13.copy_(torch.randn(4, 128, 64))
            w2.copy_(torch.randn(4, 64, 64))
        kept = w13.detach().clone(), w2.detach().clone()
        after_loading(layer)
        expected = slow(step[0], *kept, *step[1:])
        assert (layer.oea_experts.run(*step).double() - expected).norm() <= 1e-5 * expected.norm()
        after_loading(layer)  # the end of an update that has nothing for this layer
        assert (layer.oea_experts.run(*step).double() - expected).norm() <= 1e-5 * expected.norm()
    assert layer.oea_experts.why in ("its weights were updated", zentorch.problem())
    assert not cpu_experts.is_plain(SimpleNamespace(moe_runner_config=config, w13_weight_bias=w2))


def test_a_layer_of_which_only_a_part_is_loaded_again_is_refused() -> None:
    if why := zentorch.problem():
        pytest.skip(why)
    torch.manual_seed(0)
    config = SimpleNamespace(activation="silu", apply_router_weight_on_input=False)
    layer: Any = SimpleNamespace(
        moe_runner_config=config,
        w13_weight=torch.randn(4, 128, 64),
        w2_weight=torch.randn(4, 64, 64),
        layer_id=0,
    )
    after_loading(layer)
    layer.w13_weight[2].normal_()
    with pytest.raises(RuntimeError, match="restart the server"):
        after_loading(layer)


def test_a_layer_whose_experts_move_runs_in_the_loop() -> None:
    config = SimpleNamespace(activation="silu", apply_router_weight_on_input=False)
    layer: Any = SimpleNamespace(
        moe_runner_config=config,
        w13_weight=torch.randn(4, 128, 64),
        w2_weight=torch.randn(4, 64, 64),
        layer_id=0,
    )
    after_loading(layer, experts_move=True)
    assert layer.oea_experts.kind == "loop"
    assert "--enable-eplb" in layer.oea_experts.why


def test_a_layer_opened_where_another_has_gone_while_a_third_lives() -> None:
    torch.manual_seed(0)
    first = [torch.randn(4, 128, 64), torch.randn(4, 64, 64)]
    lives = open_experts(*first)
    for _ in range(4):
        w13, w2 = torch.randn(4, 128, 64), torch.randn(4, 64, 64)
        kept = w13.clone(), w2.clone()
        x, weights, ids = (
            torch.randn(5, 64),
            torch.rand(5, 2),
            torch.randint(0, 4, (5, 2), dtype=torch.int32),
        )
        ours = open_experts(w13, w2).run(x, weights, ids).double()
        expected = slow(x, *kept, weights, ids)
        assert (ours - expected).norm() <= 1e-5 * expected.norm()
    assert lives.run(x, weights, ids).shape == x.shape


class EndedError(Exception):
    """In place of the end of the process."""


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(line: str, verb: str) -> None:
        raise EndedError(f"{verb}: {line}")

    monkeypatch.setattr(guard, "end", end)


def loaded(experts: int, *missing: tuple[int, str]) -> Any:
    """A layer as SGLang allocates it, and then loads it but for some experts' matrices."""
    inner, hidden = 24, 32
    layer = SimpleNamespace(
        layer_id=3,
        w13_weight=torch.nn.Parameter(
            torch.full((experts, 2 * inner, hidden), 0.5).bfloat16(), requires_grad=False
        ),
        w2_weight=torch.nn.Parameter(
            torch.full((experts, hidden, inner), 0.5).bfloat16(), requires_grad=False
        ),
        moe_runner_config=SimpleNamespace(activation="silu", apply_router_weight_on_input=False),
    )
    unfilled.mark(layer)
    for expert in range(experts):
        parts = {
            "gate": layer.w13_weight.data[expert, :inner],
            "up": layer.w13_weight.data[expert, inner:],
            "down": layer.w2_weight.data[expert],
        }
        for name, part in parts.items():
            if (expert, name) not in missing:
                part.copy_(torch.randn(part.shape) / 8)
    return layer


def test_a_layer_that_was_loaded_is_no_problem() -> None:
    layer = loaded(4)
    assert unfilled.problem(layer) is None
    assert torch.isfinite(layer.w13_weight).all()
    assert torch.isfinite(layer.w2_weight).all()


@pytest.mark.parametrize(
    "missing", [[(2, "gate")], [(0, "up")], [(3, "down")], [(1, "gate"), (2, "down")]]
)
def test_what_loading_left_out_is_said(missing: list[tuple[int, str]]) -> None:
    problem = unfilled.problem(loaded(4, *missing))
    assert problem is not None
    assert problem.startswith(
        f"layer 3: the checkpoint has no weights for {len(missing)} of its 4 experts; "
    )
    assert "mlp_only_layers" in problem


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(value: float) -> None:
    if why := zentorch.problem():
        pytest.skip(why)
    layer = loaded(4)
    layer.w2_weight.data[1:3, 5, 7] = value
    with pytest.raises(
        EndedError,
        match=r"^refusing to start: layer 3: the weights of expert 1 and 1 more hold NaN or ",
    ):
        cpu_experts.open_layer(layer, experts_move=False)


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize(
    ("format", "is_refused"), [("auto", True), ("safetensors", True), ("sharded_state", False)]
)
def test_the_seam_sees_it_before_anything_runs(
    format: str, is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some loaders fill a layer after it is processed."""
    import sglang.srt.runtime_context
    from sglang.srt.layers.quantization.unquant import UnquantizedFusedMoEMethod as Method

    seen = []
    for name in ("create_weights", "process_weights_after_loading", "register_oot_forward"):
        monkeypatch.setattr(Method, name, lambda *args, name=name: seen.append(name))
    arguments = SimpleNamespace(load_format=format, enable_eplb=False)
    monkeypatch.setattr(sglang.srt.runtime_context, "get_server_args", lambda: arguments)
    monkeypatch.setattr(cpu_experts, "after_loading", lambda *_: seen.append("opened"))
    cpu_experts.install("oot")
    layer = loaded(4, (0, "up"))
    if is_refused:
        with pytest.raises(
            EndedError, match="layer 3: the checkpoint has no weights for 1 of its 4 experts"
        ):
            Method.process_weights_after_loading(None, layer)
        assert seen == ["register_oot_forward"]
    else:
        Method.process_weights_after_loading(None, layer)
        assert seen == ["register_oot_forward", "process_weights_after_loading", "opened"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, lambda gate, up: F.silu(gate) * up),
        (
            {"gemm1_clamp_limit": 0.5},
            lambda gate, up: F.silu(gate).clamp(max=0.5) * up.clamp(-0.5, 0.5),
        ),
        ({"swiglu_limit": 0.5}, lambda gate, up: F.silu(gate.clamp(max=0.5)) * up.clamp(-0.5, 0.5)),
        (
            {"gemm1_alpha": 1.7, "gemm1_clamp_limit": 0.5, "gate_up_interleaved": False},
            lambda gate, up: (
                (g := gate.clamp(max=0.5)) * (g * 1.7).sigmoid() * (up.clamp(-0.5, 0.5) + 1)
            ),
        ),
        (
            {"activation": "relu2", "is_gated": False},
            lambda gate, up: torch.cat([gate, up], dim=-1).relu() ** 2,
        ),
    ],
    ids=["plain", "limited", "limited before", "in halves", "without a gate"],
)
def test_what_lies_between_the_matrices(fields: dict[str, Any], expected: Any) -> None:
    torch.manual_seed(0)
    config = SimpleNamespace(
        **{"activation": "silu", "apply_router_weight_on_input": False, **fields}
    )
    w13, w2 = torch.randn(4, 8, 6), torch.randn(4, 6, 8 if "is_gated" in fields else 4)
    layer: Any = SimpleNamespace(moe_runner_config=config, w13_weight=w13, w2_weight=w2, layer_id=0)
    act = cpu_experts.between(layer)
    assert act is not None
    assert cpu_experts.is_plain(layer) is (fields == {})
    x, weights, ids = torch.randn(3, 6), torch.rand(3, 2), torch.tensor([[0, 1], [2, 3], [1, 2]])
    found = run_experts(x, w13, w2, weights, ids, act)
    for row in range(3):
        each = [w2[e] @ expected(*(w13[e] @ x[row]).chunk(2)) for e in ids[row]]
        torch.testing.assert_close(found[row], (torch.stack(each) * weights[row, :, None]).sum(0))


def test_what_sglang_computes_itself_is_left_to_it() -> None:
    weighed = SimpleNamespace(activation="silu", apply_router_weight_on_input=True)
    gelu = SimpleNamespace(activation="gelu", apply_router_weight_on_input=False)
    in_turn = SimpleNamespace(
        activation="silu",
        apply_router_weight_on_input=False,
        gemm1_alpha=1.7,
        gemm1_clamp_limit=7.0,
    )
    assert all(
        cpu_experts.between(SimpleNamespace(moe_runner_config=each)) is None
        for each in (weighed, gelu, in_turn)
    )
