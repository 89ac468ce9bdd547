"""The gate is open for what ships, and closes on a router that is broken on purpose.

Each fault is planted in the implementation that is judged: the compiled loop by the shipped
thresholds; the kernel in Triton's interpreter and eager on fewer tokens, by what the same
implementation gives without the fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from oea_server import shipped
from oea_server.lab.quality import gate
from oea_server.lab.quality.measure import Judge
from oea_server.routing import Routing, fastest
from tests.unit.quality.faults import FAULTS, IMPLEMENTATIONS, Fault

Summary = dict[str, dict[str, float]]
ASSERTED = "oea:3@16"
ONLY = ("vanilla@16", ASSERTED)
FEW = {"eager": (16, 24), "fused": (16, 2)}
"""Sequences, and tokens of each: the interpreter takes a second a step."""


@pytest.fixture(scope="module")
def judge() -> Judge:
    return gate.judge()


@pytest.fixture(scope="module")
def small() -> Callable[[str], tuple[Judge, Summary]]:
    """By implementation: a judge of few tokens, and what is measured without a fault."""
    found: dict[str, tuple[Judge, Summary]] = {}

    def get(name: str) -> tuple[Judge, Summary]:
        if name not in found:
            by = gate.judge(*FEW[name])
            found[name] = by, gate.summary(gate.measure(ONLY, by))
        return found[name]

    return get


def failed(found: Summary, kept: Summary) -> set[str]:
    checks = [check for name in found for check in gate.bounds(name, found[name], kept[name])]
    return {check.what.split()[0] for check in checks if not check.passed}


def serve_by(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    way = fastest.Way(name, IMPLEMENTATIONS[name], "")
    monkeypatch.setattr(fastest, "way", lambda *shape: way)


def test_it_is_open(judge: Judge) -> None:
    measured = gate.measure(by=judge)
    checks = gate.checks(gate.summary(measured), gate.read())
    assert not [check for check in checks if not check.passed]
    assert len(checks) > 35
    assert {each.routing for each in measured.values()} == {"host"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_in_the_compiled_loop_closes_it(
    monkeypatch: pytest.MonkeyPatch, judge: Judge, fault: Fault
) -> None:
    fault.plant["host"](monkeypatch)
    found = gate.summary(gate.measure(ONLY, judge))
    assert ASSERTED in failed(found, gate.read()["measured"])


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("name", FEW)
def test_a_fault_in_another_implementation_closes_it(
    monkeypatch: pytest.MonkeyPatch,
    small: Callable[[str], tuple[Judge, Summary]],
    name: str,
    fault: Fault,
) -> None:
    serve_by(monkeypatch, name)
    by, kept = small(name)
    assert not failed(kept, kept)
    fault.plant[name](monkeypatch)
    assert failed(gate.summary(gate.measure(ONLY, by)), kept)


def test_logits_in_bfloat16_are_judged_too(monkeypatch: pytest.MonkeyPatch, judge: Judge) -> None:
    def flipped(logits: torch.Tensor, *rest: Any, **named: Any) -> Routing:
        routing = IMPLEMENTATIONS["host"](logits, *rest, **named)
        return (
            routing._replace(weights=routing.weights.flip(-1))
            if logits.dtype == torch.bfloat16
            else routing
        )

    monkeypatch.setattr(fastest, "way", lambda *shape: fastest.Way("host", flipped, ""))
    found = gate.summary(gate.measure(("vanilla@16", "default@16", "default/bfloat16@16"), judge))
    assert failed(found, gate.read()["measured"]) == {"default/bfloat16@16"}


def test_another_model_is_not_judged_by_these_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "fingerprint", lambda path: "another")
    with pytest.raises(ValueError, match="of another demo model"):
        gate.read()
    assert shipped.held_out().exists()
