"""A prefill worker says that it never decodes, wherever it is asked; a decode worker is a server
like any other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from oea_server.engine import checkpoint, conflicts, launch, locks, model_card, runtime, workers
from oea_server.engine.routers import Router
from oea_server.observe import latency
from oea_server.settings import Settings
from tests.unit.test_start_reporting import reported

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("given", "idle"),
    [
        ({"disaggregation_mode": "prefill"}, True),
        ({"disaggregation_mode": "prefill", "enable_pd_role_switch": False}, True),
        ({"disaggregation_mode": "prefill", "enable_pd_role_switch": True}, False),
        ({"disaggregation_mode": "decode"}, False),
        ({"disaggregation_mode": "null"}, False),
        ({}, False),
    ],
)
def test_who_never_decodes(given: dict[str, Any], idle: bool) -> None:
    assert bool(workers.idle(SimpleNamespace(**given))) == idle


@pytest.mark.parametrize("policy", ["oea", "vanilla"])
def test_it_says_so_in_the_log_and_in_a_metric(
    policy: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = runtime.Runtime(Settings(policy=policy))
    now.steering.idle = workers.NEVER_DECODES
    assert now.adopt([Router(0, 4, True, None)], 16, CPU) == []
    registry = reported(now, monkeypatch)
    reason = workers.NEVER_DECODES if policy == "oea" else "the policy is vanilla"
    assert f"router inactive: {reason}" in caplog.text
    assert registry.get_sample_value("oea_router_active") == 0
    assert registry.get_sample_value("oea_router_limits", {"reason": reason}) == 1
    assert now.steering.change(Settings(k0="2")) is None  # taken, as by the pair's other half
    assert (now.steering.active, now.steering.reason) == (False, workers.NEVER_DECODES)


def test_doctor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"disaggregation_mode": "prefill", "moe_runner_backend": "triton", "device": "cuda"}
    asked |= {"model_path": "m", "load_format": "auto", "speculative_algorithm": "none"}
    view = SimpleNamespace(tokenizer_worker_num=1, enable_metrics=True, **asked)
    monkeypatch.setattr(launch, "card_of", lambda _: None)
    monkeypatch.setattr(conflicts, "resolved", lambda _: view)
    monkeypatch.setattr(conflicts, "find_in_server_args", lambda _: [])
    for module in (model_card, checkpoint, latency, locks):
        monkeypatch.setattr(module, "problems", lambda *_: [])
    verdict = launch.judge(Settings(), view, elsewhere=True)
    assert (verdict.problems, verdict.inactive) == ([], workers.NEVER_DECODES)
