"""SGLang's own Triton kernels, in Triton's interpreter, beside what a CPU runs in their place."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from oea_server.cpu import kernels
from oea_server.engine import guard


@pytest.fixture(scope="module")
def sglangs() -> Any:
    return importlib.import_module(kernels.MODULE)


@pytest.mark.interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "hidden"), [(1, 64), (5, 96), (33, 128)])
@pytest.mark.parametrize("name", kernels.STANDINS)
def test_a_stand_in_computes_what_the_kernel_does(
    name: str, rows: int, hidden: int, dtype: torch.dtype, sglangs: Any
) -> None:
    torch.manual_seed(rows)
    if not hasattr(sglangs, name):
        pytest.skip("this SGLang has no such kernel")
    x, shared, final = (torch.randn(rows, hidden).to(dtype) for _ in range(3))
    gate = torch.randn(hidden).to(dtype) / 4
    given = (x, gate, shared) if name == "fused_gate_sigmoid_mul" else (x, gate, shared, final)
    theirs, ours = [each.clone() for each in given], [each.clone() for each in given]
    expected = getattr(sglangs, name)(*theirs)
    standin: Any = kernels.STANDINS[name]
    got = standin(*ours)
    close = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (1e-2, 1e-2)}[dtype]
    torch.testing.assert_close(got, expected, rtol=close[0], atol=close[1])
    for mine, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, their, rtol=close[0], atol=close[1])


@pytest.mark.interpreter
def test_experts_that_compute_nothing_add_the_token_itself() -> None:
    source: Any = importlib.import_module(kernels.ZERO_EXPERTS[0])
    torch.manual_seed(0)
    hidden, weights = torch.randn(5, 512), torch.rand(5, 4)
    ids = torch.tensor(
        [[0, 5, 17, 23], [16, 18, 20, 22], [1, 2, 3, 4], [15, 16, 3, 17], [9, 9, 21, 0]]
    )
    theirs, ours = [(ids.clone(), weights.clone()) for _ in range(2)]
    expected = getattr(source, kernels.ZERO_EXPERTS[1])(*theirs, 16, "identity", hidden)
    got = kernels.zero_experts(*ours, 16, "identity", hidden)
    torch.testing.assert_close(got, expected)
    for mine, their in zip(ours, theirs, strict=True):
        assert torch.equal(mine, their)
    with pytest.raises(ValueError, match="zero_expert_type=copy"):
        kernels.zero_experts(*ours, 16, "copy", hidden)


def test_models_that_are_imported_get_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    source, model = ModuleType("source"), ModuleType("model")
    for module in (source, model):
        monkeypatch.setattr(module, "fused_gate_sigmoid_mul_add", None, raising=False)
    monkeypatch.setitem(sys.modules, kernels.MODULE, source)
    monkeypatch.setitem(sys.modules, kernels.IMPORTED_BY, model)
    longcat = ModuleType("longcat")
    monkeypatch.setitem(sys.modules, kernels.ZERO_EXPERTS[0], longcat)
    monkeypatch.setattr(kernels, "refuse_others", lambda: None)
    kernels.install()
    for module in (source, model):
        assert module.fused_gate_sigmoid_mul_add is kernels.gate_sigmoid_mul_add
        assert not hasattr(module, "fused_gate_sigmoid_mul")
    assert getattr(longcat, kernels.ZERO_EXPERTS[1]) is kernels.zero_experts


@pytest.mark.parametrize("tuned", [False, True])
def test_another_kernel_is_refused_by_name(tuned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.jit import JITFunction

    def a_kernel() -> None:
        pass

    class EndedError(Exception):
        pass

    def end(line: str) -> None:
        raise EndedError(line)

    for kind in (JITFunction, Autotuner):
        monkeypatch.setattr(kind, "run", kind.run)
    monkeypatch.setattr(guard, "end", end)
    kernels.refuse_others()
    kind = Autotuner if tuned else JITFunction
    kernel = SimpleNamespace(fn=a_kernel, **({"base_fn": a_kernel} if tuned else {}))
    with pytest.raises(
        EndedError,
        match=rf"^this model needs {__name__}\..*a_kernel, a Triton kernel, which no CPU runs",
    ):
        kind.run(kernel, 1, 2, grid=(1,), warmup=False)
