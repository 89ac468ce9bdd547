"""The stand-ins for DP attention on a CPU: what they replace is there in SGLang, and they compute
what it does."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from oea_server.cpu import dp_attention

NEWEST = version("sglang") != "0.5.17"
needs_newest = pytest.mark.skipif(
    not NEWEST, reason="SGLang 0.5.17 pins memory for DP attention, whatever it runs on"
)
GROUP = "sglang.srt.distributed.parallel_state"
GATHER = "sglang.srt.layers.dp_attention"


def source(module: str) -> ast.Module:
    """As SGLang has it, whatever was put in its place since."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def functions(body: list[ast.stmt]) -> Iterator[tuple[str, list[str]]]:
    for each in body:
        if isinstance(each, ast.FunctionDef):
            yield each.name, [argument.arg for argument in each.args.args]


def test_the_collectives_are_those_of_sglangs_groups() -> None:
    (group,) = (
        each for each in source(GROUP).body if getattr(each, "name", "") == "GroupCoordinator"
    )
    assert isinstance(group, ast.ClassDef)
    theirs = dict(functions(group.body))
    standins: dict[str, Any] = dict(dp_attention.COLLECTIVES)
    for name, ours in standins.items():
        assert list(inspect.signature(ours).parameters) == theirs[name]


@needs_newest
def test_rows_are_copied_by_sglangs_own_function_for_cpus() -> None:
    tree = source(GATHER)
    assigned = {
        target.id
        for each in ast.walk(tree)
        if isinstance(each, ast.Assign)
        for target in each.targets
        if isinstance(target, ast.Name)
    }
    assert {"memcpy_func"} <= assigned
    theirs = dict(functions(tree.body))
    assert theirs["memcpy_cpu"] == theirs["memcpy"]


@needs_newest
def test_the_attention_backend_is_asked_for_a_length_to_pad_with() -> None:
    text = ast.unparse(source("sglang.srt.model_executor.forward_batch_info"))
    for name in ("get_cpu_graph_seq_len_fill_value", "get_cuda_graph_seq_len_fill_value"):
        assert f"attn_backend.{name}()" in text or name == "get_cpu_graph_seq_len_fill_value"


@needs_newest
def test_installed_they_are_what_sglang_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.srt import runtime_context
    from sglang.srt.distributed.parallel_state import GroupCoordinator
    from sglang.srt.layers import dp_attention as gathering
    from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend

    dp_attention.install()
    for name, ours in dp_attention.COLLECTIVES.items():
        assert getattr(GroupCoordinator, name) is ours
    rows, buffer = torch.arange(6.0).view(3, 2), torch.zeros(5, 2)
    gathering.memcpy(buffer, rows, 0, torch.tensor(1), torch.tensor(3), False)
    assert torch.equal(buffer[1:4], rows)
    assert not buffer[[0, 4]].any()
    for drafts, length in ((None, 1), (4, 4)):
        given = SimpleNamespace(speculative_num_draft_tokens=drafts)
        monkeypatch.setattr(runtime_context, "get_server_args", lambda given=given: given)
        assert TorchNativeAttnBackend.get_cuda_graph_seq_len_fill_value(SimpleNamespace()) == length


def test_where_they_would_be_of_no_use_nothing_is_replaced() -> None:
    """And nothing fails: the platform is loaded with any SGLang."""
    from sglang.srt.distributed.parallel_state import GroupCoordinator

    dp_attention.install()
    assert (GroupCoordinator.reduce_scatterv is dp_attention.reduce_scatterv) == NEWEST


@pytest.mark.parametrize("sizes", [None, [2, 2], [1, 3], [4, 0]])
@pytest.mark.parametrize("own", [0, 1])
def test_each_rank_gets_its_rows_of_the_sum(sizes: list[int] | None, own: int) -> None:
    here, there = torch.randn(4, 3), torch.randn(4, 3)
    group: Any = SimpleNamespace(
        world_size=2, rank_in_group=own, all_reduce=lambda rows: rows.add_(there)
    )
    start, count = (2 * own, 2) if sizes is None else (sum(sizes[:own]), sizes[own])
    given, out = here.clone(), torch.empty(count, 3)
    got = dp_attention.reduce_scatterv(group, given, out, sizes)
    assert got.data_ptr() == out.data_ptr() or not count
    assert torch.equal(out, (here + there)[start : start + count])
    assert torch.equal(given, here)
    assert torch.equal(dp_attention.reduce_scatterv(group, given, None, sizes), out)
