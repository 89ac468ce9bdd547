"""A decode step whose router sees other rows than the step's ends the server: nobody could tell
pads from tokens."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from oea_server.engine import forward_mode, guard, runtime
from oea_server.engine.seams import SEAMS
from oea_server.engine.step import Step
from tests.engine.test_seams import padded, select


def mode(name: str) -> Any:
    from sglang.srt.model_executor.forward_batch_info import ForwardMode

    return ForwardMode[name]


def batch(requests: int, rows: int | None = None, name: str = "DECODE", **more: Any) -> Any:
    """A `ForwardBatch` as it comes to `ModelRunner.forward`."""
    ids = torch.zeros(requests if rows is None else rows, dtype=torch.int64)
    rids = [f"r{i}" for i in range(requests)]
    return SimpleNamespace(
        forward_mode=mode(name), batch_size=requests, input_ids=ids, rids=rids, **more
    )


def forward(given: Any, draft: bool = False) -> str:
    """Through our seam: what SGLang's own forward returned."""
    runner = SimpleNamespace(is_draft_worker=draft)
    return str(forward_mode.around_forward(lambda self, forward_batch: "ran", runner, given))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"requests": 4, "rows": 8}, "a decode step of 4 requests has 8 rows"),
        ({"requests": 4, "rows": 3}, "a decode step of 4 requests has 3 rows"),
        (
            {"requests": 4, "global_num_tokens_cpu": [4, 3]},
            "a batch of 7 rows, those of other ranks (4, 3)",
        ),
        (
            {"requests": 4, "global_num_tokens_cpu": [4, 0]},
            "a batch of 4 rows, those of other ranks (4, 0)",
        ),
        ({"requests": 4, "global_num_tokens_cpu": torch.tensor([1, 4, 2, 2])}, "a batch of 9 rows"),
        ({"requests": 4, "global_num_tokens_cpu": [8]}, "a batch of 8 rows"),
        (
            {"requests": 2, "input_embeds": torch.zeros(6, 3)},
            "a decode step of 2 requests has 6 rows",
        ),
        (
            {"requests": 2, "rows": 8, "name": "TARGET_VERIFY"},
            "2 requests has 8 rows, where each request has one",
        ),
        (
            {
                "requests": 3,
                "rows": 8,
                "name": "TARGET_VERIFY",
                "spec_info": SimpleNamespace(num_tokens_per_req=4),
            },
            (
                "a decode step of 3 requests has 8 rows, where each request has 4, its drafts among"
                " them"
            ),
        ),
    ],
)
def test_a_batch_that_is_not_one_row_per_request_ends_before_it_runs(
    now: runtime.Runtime, ended: Callable[[], str], given: dict[str, Any], why: str
) -> None:
    with pytest.raises(SystemExit) as out:
        forward(batch(**given))
    assert out.value.code == 2
    line = ended()
    assert line.startswith("oea-server: ending: ")
    assert why in line


@pytest.mark.parametrize(
    "given",
    [
        {"requests": 4},
        {"requests": 4, "global_num_tokens_cpu": None, "input_embeds": None},
        {"requests": 4, "global_num_tokens_cpu": [4]},
        {"requests": 2, "input_embeds": torch.zeros(2, 3)},
        # no decode step: SGLang's own top k, whatever its rows
        {"requests": 2, "rows": 40, "name": "EXTEND", "global_num_tokens_cpu": [40, 3]},
        {"requests": 0, "name": "IDLE", "global_num_tokens_cpu": [0, 3]},
        {
            "requests": 2,
            "rows": 8,
            "name": "TARGET_VERIFY",
            "spec_info": SimpleNamespace(num_tokens_per_req=4),
        },
    ],
)
def test_a_batch_of_known_rows_runs(now: runtime.Runtime, given: dict[str, Any]) -> None:
    assert forward(batch(**given)) == "ran"
    assert now.rows.forward_batch is None


def test_a_draft_worker_is_left_alone(now: runtime.Runtime) -> None:
    assert forward(batch(4, 8), draft=True) == "ran"


def test_so_is_a_server_none_of_whose_layers_is_ours(now: runtime.Runtime) -> None:
    now.routers = {}
    assert forward(batch(4, 8)) == "ran"


@pytest.mark.parametrize("rows", [1, 5, 7, 12])
@pytest.mark.parametrize("policy", ["oea", "vanilla"])
def test_a_layer_that_sees_other_rows_ends(
    now: runtime.Runtime, ended: Callable[[], str], rows: int, policy: str
) -> None:
    now.steering.change(now.steering.settings.model_copy(update={"policy": policy}))
    with now.decoding(Step(6, counted=True)), pytest.raises(SystemExit):
        select(torch.randn(rows, 16))
    assert f"a router got {rows} rows in a decode step of 6" in ended()


@pytest.mark.parametrize("rows", [6, 9])
def test_while_a_graph_is_captured_its_own_rows_alone_will_do(
    now: runtime.Runtime, ended: Callable[[], str], rows: int
) -> None:
    with now.decoding(Step(8, counted=False, capturing=True)), pytest.raises(SystemExit):
        select(torch.randn(rows, 16))
    assert f"a router got {rows} rows in the capture of a graph of 8" in ended()


def test_padding_that_sglang_declares_is_padding(
    now: runtime.Runtime, ended: Callable[[], str]
) -> None:
    with padded(now, 5, 8):
        assert not select(torch.randn(8, 16)).topk_weights[5:].any()
    with padded(now, 5, 8), pytest.raises(SystemExit):
        select(torch.randn(7, 16))
    assert "a router got 7 rows in a decode step of 5" in ended()


def test_the_rows_of_the_graph_that_is_replayed_are_known(
    now: runtime.Runtime, ended: Callable[[], str]
) -> None:
    """`--debug-cuda-graph` runs the layers anew at each replay."""
    with now.decoding(Step(8, counted=False, capturing=True)):
        select(torch.randn(8, 16))
    with now.decoding(Step(5, counted=True)):
        select(torch.randn(8, 16))
    with now.decoding(Step(9, counted=True)), pytest.raises(SystemExit):
        select(torch.randn(16, 16))
    assert "16 rows in a decode step of 9" in ended()


def test_the_guard_is_there_in_a_patched_sglang_as_well() -> None:
    (seam,) = (seam for seam in SEAMS if seam.target.endswith("ModelRunner.forward"))
    assert not seam.in_patch
    assert guard.problem_of(batch(3, 4)) is not None
