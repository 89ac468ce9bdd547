"""The gate is open for what ships, and closes on a router that is broken on purpose."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from oea_server.demo import shipped
from oea_server.quality import gate
from oea_server.routing import eager
from oea_server.routing.policy import Numbers


def judged() -> list[gate.Check]:
    return gate.checks(gate.summary(gate.measure()), gate.read())


def failed(checks: list[gate.Check]) -> set[str]:
    return {check.what.split()[0] for check in checks if not check.passed}


def test_it_is_open() -> None:
    checks = judged()
    assert not failed(checks)
    assert len(checks) > 30


def test_weights_of_the_wrong_experts_close_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = eager.weigh

    def rolled(*args: Any) -> tuple[eager.Routing, torch.Tensor]:
        routing, mass = real(*args)
        return routing._replace(weights=routing.weights.flip(-1)), mass

    monkeypatch.setattr(eager, "weigh", rolled)
    assert {"oea:3@16", "default@4"} <= failed(judged())


@pytest.mark.parametrize("off", [-1, 1])
def test_a_floor_that_is_off_by_one_closes_it(monkeypatch: pytest.MonkeyPatch, off: int) -> None:
    real = eager.floor

    def shifted(best: torch.Tensor, scores: torch.Tensor, numbers: Numbers, *rest: Any) -> torch.Tensor:
        return real(best, scores, numbers._replace(floor=numbers.floor + off), *rest)

    monkeypatch.setattr(eager, "floor", shifted)
    assert {"oea:3@16", "default@16"} <= failed(judged())


def test_pads_in_the_pool_close_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = eager.floor

    def forgetful(*args: Any) -> torch.Tensor:
        given: list[Any] = [*args[:-1], None]  # which rows are real
        return real(*given)

    monkeypatch.setattr(eager, "floor", forgetful)
    assert {"oea:3@16", "default@4"} <= failed(judged())


def test_another_model_is_not_judged_by_these_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "fingerprint", lambda path: "another")
    with pytest.raises(ValueError, match="of another demo model"):
        gate.read()
    assert shipped.HELD_OUT.exists()
