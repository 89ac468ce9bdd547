"""What a server without routers of ours reports: its policy too, by which an alert knows what was
asked."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from prometheus_client import CollectorRegistry

from oea_server.engine import runtime, start_reporting
from oea_server.engine.routers import Router
from oea_server.observe import metrics
from oea_server.settings import Settings

CPU = torch.device("cpu")


def reported(now: runtime.Runtime, monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    context = "sglang.srt.runtime_context"
    monkeypatch.setattr(f"{context}.get_server_args", lambda: SimpleNamespace(enable_metrics=True))
    monkeypatch.setattr(f"{context}.get_parallel", lambda: SimpleNamespace(pp_rank=0))
    registry = CollectorRegistry()
    monkeypatch.setattr(metrics, "Metrics", partial(metrics.Metrics, registry))
    start_reporting.start(now)
    return registry


@pytest.mark.parametrize("policy", ["vanilla", "shadow", "oea"])
@pytest.mark.parametrize("routers", [[], [Router(0, 4, True, "biased")]])
def test_without_routers_it_is_inactive_and_says_what_was_asked(
    policy: str, routers: list[Router], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = runtime.Runtime(Settings(policy=policy, allow_inactive=True))
    assert now.adopt(routers, 16 * len(routers), CPU) == []
    registry = reported(now, monkeypatch)
    assert registry.get_sample_value("oea_router_active") == 0
    assert registry.get_sample_value("oea_router_limits", {"reason": now.steering.reason}) == 1
    sizes = {"num_experts": str(16 * len(routers)), "top_k": "0", "ranks": "1"}
    for each in ("vanilla", "shadow", "oea"):
        assert registry.get_sample_value("oea_policy_info", {"policy": each, **sizes}) == (
            each == policy
        )


def test_an_empty_pipeline_stage_leaves_the_policy_to_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = runtime.Runtime(Settings(k0="3"))
    assert now.adopt([], 16, CPU, k_elsewhere=4) == []
    registry = reported(now, monkeypatch)
    assert registry.get_sample_value("oea_router_active") == 1
    assert not [
        each
        for family in registry.collect()
        if family.name == "oea_policy_info"
        for each in family.samples
    ]
