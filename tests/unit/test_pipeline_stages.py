"""A pipeline stage may hold no MoE layer; a model whose stages hold none at all is refused."""

from __future__ import annotations

import sys
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from oea_server.engine import model_init, runtime
from oea_server.engine.routers import Router
from oea_server.settings import Settings

CPU = torch.device("cpu")


def test_a_stage_without_moe_layers_is_accepted_and_says_so() -> None:
    now = runtime.Runtime(Settings(k0="3"))
    assert now.adopt([], 16, CPU, k_elsewhere=4) == []
    assert (now.active, now.reason, now.routers) == (True, "this pipeline stage has no MoE layers", {})


def test_a_model_without_experts_in_any_stage_is_refused() -> None:
    now = runtime.Runtime(Settings(k0="3"))
    assert now.adopt([], 0, CPU, k_elsewhere=0) == ["the model has no experts to route"]


def test_a_stage_whose_routers_cannot_be_handled_is_no_empty_stage() -> None:
    now = runtime.Runtime(Settings())
    problems = now.adopt([Router(0, 4, True, "biased")], 16, CPU, k_elsewhere=4)
    assert problems == ["1 of 1 MoE layers run vanilla: biased"]


@pytest.mark.parametrize("routers", [[], [Router(3, 8, True, None)]])
def test_all_stages_take_a_change_or_none(routers: list[Router], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oea_server.routing.host.warm_up", lambda *_: None)  # compiles for many seconds
    now = runtime.Runtime(Settings(k0="3"))
    assert now.adopt(routers, 16, CPU, k_elsewhere=4) == []
    assert now.change(Settings(k0="4")) is None
    assert now.change(Settings(k0="5")) == "k0=5 guarantees 5 experts, above the model's top-k 4"
    assert now.change(Settings(policy="vanilla")) is None


def stage(rank: int, store: str, answers: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", world_size=2, rank=rank)
    group = SimpleNamespace(cpu_group=torch.distributed.group.WORLD)
    stages = SimpleNamespace(pp_size=2, pp_group=group)
    standin: Any = ModuleType("runtime_context")  # SGLang's, which takes ten seconds to import
    standin.get_parallel = lambda: stages
    sys.modules["sglang.srt.runtime_context"] = standin
    answers.put((rank, model_init.in_stages(model_init.Stage(rank * 16, rank * 4))))


def test_stages_know_of_each_other(tmp_path: Path) -> None:
    context = get_context("fork")
    answers = context.Queue()
    ranks = [context.Process(target=stage, args=(rank, str(tmp_path / "store"), answers)) for rank in (0, 1)]
    for each in ranks:
        each.start()
    found = dict(answers.get(timeout=240) for _ in ranks)
    for each in ranks:
        each.join()
    assert found == {rank: [model_init.Stage(0, 0), model_init.Stage(16, 4)] for rank in (0, 1)}


def test_one_stage_asks_nobody() -> None:
    assert model_init.in_stages(model_init.Stage(16, 4)) == [model_init.Stage(16, 4)]
