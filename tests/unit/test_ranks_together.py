"""Ranks load and change together: threads, each with a runtime of its own, that meet in one
store."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed import HashStore  # type: ignore[attr-defined]

from oea_server.engine import control, meeting, model_init, runtime
from oea_server.engine.meeting import World
from oea_server.engine.model_init import Stage
from oea_server.engine.routers import Router
from oea_server.settings import Settings

CPU = torch.device("cpu")
ROUTERS = [Router(0, 4, True, None)]
Together = Callable[..., list[Any]]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Together:
    """Runs a function of a rank on each of them; an ended rank comes to its exit's code."""
    store, mine = HashStore(), threading.local()
    monkeypatch.setattr(meeting, "world", lambda: mine.world)
    monkeypatch.setattr(os, "kill", lambda pid, signum: None)
    # compiles for many seconds
    monkeypatch.setattr("oea_server.routing.host.warm_up", lambda *_: None)

    def run(function: Callable[[int], Any], size: int = 2, width: int = 2) -> list[Any]:
        def as_rank(rank: int) -> Any:
            mine.world = World(store, rank, size, width, size)
            try:
                return function(rank)
            except SystemExit as ended:
                return ended.code

        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(as_rank, range(size)))

    return run


def loaded(settings: Settings) -> runtime.Runtime:
    now = runtime.Runtime(settings)
    assert now.adopt(ROUTERS, 16, CPU) == []
    return now


def test_ranks_that_agree_hear_what_each_stage_holds(together: Together) -> None:
    runtimes = [runtime.Runtime(Settings()) for _ in range(4)]
    found = together(
        lambda rank: model_init.agreed(
            runtimes[rank], ROUTERS[: rank // 2], Stage(rank // 2 * 16, rank // 2 * 4)
        ),
        4,
    )
    assert found == [[Stage(0, 0), Stage(16, 4)]] * 4
    assert all(control.state_of(now)["ranks_agree"] is True for now in runtimes)


def test_ranks_that_do_not_agree_end_the_launch(
    together: Together, capsys: pytest.CaptureFixture[str]
) -> None:
    runtimes = [runtime.Runtime(Settings(policy="random", seed=rank)) for rank in range(2)]
    assert together(lambda rank: model_init.agreed(runtimes[rank], ROUTERS, Stage(16, 4))) == [2, 2]
    one, two = capsys.readouterr().err.splitlines()
    assert one == two
    assert one.startswith("oea-server: refusing to start: ranks differ: seed 0 on rank 0 (node 0, ")
    assert not any(control.state_of(now)["ranks_agree"] for now in runtimes)


def test_a_rank_alone_asks_nobody() -> None:
    now = runtime.Runtime(Settings())
    assert model_init.agreed(now, ROUTERS, Stage(16, 4)) == [Stage(16, 4)]
    assert control.state_of(now)["ranks_agree"] is True


def test_all_ranks_take_a_change(together: Together) -> None:
    runtimes = [loaded(Settings()) for _ in range(2)]
    for k0 in (2, 3):
        assert together(lambda rank, k0=k0: control.change(runtimes[rank], {"oea_k0": k0})) == [
            None,
            None,
        ]
        assert [now.steering.settings.k0 for now in runtimes] == [str(k0)] * 2


def test_what_no_rank_can_take_says_what_one_alone_would_say(together: Together) -> None:
    runtimes = [loaded(Settings()) for _ in range(2)]
    for requested, said in (
        ({"oea_k0": 5}, "k0=5 guarantees 5 experts, above the model's top-k 4"),
        ({"oea_k0": 2, "oea_p": 2}, "oea_p=2: input should be less than or equal to 1"),
    ):
        found = together(
            lambda rank, requested=requested: control.change(runtimes[rank], requested)
        )
        assert found == [said] * 2
    assert together(lambda rank: control.change(runtimes[rank], {"oea_k0": 2})) == [None, None]


def test_what_one_rank_cannot_take_none_takes(together: Together) -> None:
    """Here, because its CUDA graphs hold something else."""
    runtimes = [loaded(Settings()) for _ in range(2)]
    runtimes[1].graphs.held = "vanilla"
    one, two = together(lambda rank: control.change(runtimes[rank], {"oea_k0": 2}))
    assert one == two
    assert "refusal none on rank 0 (node 0, " in one
    assert ", CUDA graphs were captured with SGLang's own kernels" in one
    assert [now.steering.settings.k0 for now in runtimes] == ["auto", "auto"]
    assert [now.steering.version for now in runtimes] == [0, 0]


def test_ranks_that_have_come_apart_end_at_the_next_change(
    together: Together, capsys: pytest.CaptureFixture[str]
) -> None:
    runtimes = [loaded(Settings()) for _ in range(2)]
    assert runtimes[1].steering.change(Settings(k0="2")) is None  # alone
    assert together(lambda rank: control.change(runtimes[rank], {"oea_k0": 3})) == [2, 2]
    lines = capsys.readouterr().err.splitlines()
    assert all(
        line.startswith("oea-server: ending: ranks differ: k0 auto on rank 0 (node 0, ")
        for line in lines
    )
    assert len(lines) == 2


def test_ranks_that_can_serve_vanilla_alone_wait_for_nobody(together: Together) -> None:
    """DP attention hands a request to each rank in its own time; a rank that waited would hold up
    the others' steps."""
    now = loaded(Settings(policy="vanilla"))
    now.steering.clash = "--attn-dp-size 2: rows of all ranks"
    assert (
        together(lambda rank: control.change(now, {"oea_k0": 3}) if rank == 0 else "never asked")[0]
        is None
    )


def rank_of_a_group(rank: int, store: str, answers: Any) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", world_size=2, rank=rank
    )
    standin: Any = ModuleType("runtime_context")  # SGLang's, which takes ten seconds to import
    standin.get_parallel = lambda: SimpleNamespace(tp_size=1)
    standin.get_server_args = lambda: SimpleNamespace(nnodes=2)
    sys.modules["sglang.srt.runtime_context"] = standin
    here = meeting.world()
    assert here is not None
    now = runtime.Runtime(Settings())
    answers.put(
        (
            rank,
            here[1:],
            model_init.agreed(now, ROUTERS, Stage(rank * 16, 4)),
            now.steering.ranks_agree,
        )
    )


def test_processes_meet_in_their_groups_store(tmp_path: Path) -> None:
    context = get_context("fork")
    answers = context.Queue()
    both = [
        context.Process(target=rank_of_a_group, args=(rank, str(tmp_path / "store"), answers))
        for rank in (0, 1)
    ]
    for each in both:
        each.start()
    found = sorted(answers.get(timeout=240) for _ in both)
    for each in both:
        each.join()
    stages = [Stage(0, 4), Stage(16, 4)]
    assert found == [(rank, (rank, 2, 1, 2), stages, True) for rank in (0, 1)]
