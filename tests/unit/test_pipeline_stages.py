"""A pipeline stage may hold no MoE layer; a model whose stages hold none at all is refused."""

from __future__ import annotations

import pytest
import torch

from oea_server.engine import model_card, runtime
from oea_server.engine.routers import Router
from oea_server.settings import Settings

CPU = torch.device("cpu")


def test_a_stage_without_moe_layers_is_accepted_and_says_so() -> None:
    now = runtime.Runtime(Settings(k0="3"))
    assert now.adopt([], 16, CPU, k_elsewhere=4) == []
    assert (now.steering.active, now.steering.reason, now.routers) == (
        True,
        "this pipeline stage has no MoE layers",
        {},
    )


def test_a_model_without_experts_in_any_stage_is_refused() -> None:
    now = runtime.Runtime(Settings(k0="3"))
    assert now.adopt([], 0, CPU, k_elsewhere=0) == [
        f"the model has no experts to route; {model_card.ANYWAY}"
    ]


def test_a_stage_whose_routers_cannot_be_handled_is_no_empty_stage() -> None:
    now = runtime.Runtime(Settings())
    problems = now.adopt([Router(0, 4, True, "biased")], 16, CPU, k_elsewhere=4)
    assert problems == [f"1 of 1 MoE layers run vanilla: biased; {model_card.ANYWAY}"]


@pytest.mark.parametrize("routers", [[], [Router(3, 8, True, None)]])
def test_all_stages_take_a_change_or_none(
    routers: list[Router], monkeypatch: pytest.MonkeyPatch
) -> None:
    # compiles for many seconds
    monkeypatch.setattr("oea_server.routing.host.warm_up", lambda *_: None)
    now = runtime.Runtime(Settings(k0="3"))
    assert now.adopt(routers, 16, CPU, k_elsewhere=4) == []
    assert now.steering.change(Settings(k0="4")) is None
    assert (
        now.steering.change(Settings(k0="5"))
        == "k0=5 guarantees 5 experts, above the model's top-k 4"
    )
    assert now.steering.change(Settings(policy="vanilla")) is None


@pytest.mark.parametrize(
    "settings", [Settings(policy="vanilla", k0="3"), Settings(k0="3", allow_inactive=True)]
)
def test_a_stage_whose_routers_cannot_be_handled_takes_the_changes_that_others_take(
    settings: Settings,
) -> None:
    now = runtime.Runtime(settings)
    assert now.adopt([Router(0, 4, True, "biased")], 16, CPU, k_elsewhere=4) == []
    assert (now.steering.version, now.routers) == (0, {})
    assert (
        now.steering.change(Settings(k0="5"))
        == "k0=5 guarantees 5 experts, above the model's top-k 4"
    )
    assert now.steering.change(Settings(k0="4")) is None
    assert (now.steering.version, now.steering.reason) == (
        1,
        "1 of 1 MoE layers run vanilla: biased",
    )


def test_a_stage_alone_whose_routers_cannot_be_handled_takes_none() -> None:
    now = runtime.Runtime(Settings(policy="vanilla"))
    assert now.adopt([Router(0, 4, True, "biased")], 16, CPU) == []
    assert (
        now.steering.change(Settings(policy="vanilla", k0="4"))
        == "1 of 1 MoE layers run vanilla: biased"
    )
