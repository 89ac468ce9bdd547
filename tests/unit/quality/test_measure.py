"""The protocol: vanilla is the model itself, T is what is read, and a rerun goes on where it
was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from oea_server.lab.quality import grid
from oea_server.lab.quality.arms import Arm, parse
from oea_server.lab.quality.measure import Judge, Measured
from oea_server.lab.quality.routed import UnsupportedModelError, routed, routers
from oea_server.lab.quality.steps import to_sequences, to_steps
from oea_server.lab.quality.text import Sequences
from oea_server.routing import Policy, Router
from oea_server.routing.host import reference
from tests.unit.quality.conftest import BATCH, LENGTH, SEQUENCES


def test_steps_are_the_same_positions_of_a_groups_sequences() -> None:
    tokens = torch.arange(6 * 5).view(6, 5, 1)
    steps = to_steps(tokens, 3)
    assert steps.shape == (2, 5, 3, 1)
    assert steps[1, 2].flatten().tolist() == [3 * 5 + 2, 4 * 5 + 2, 5 * 5 + 2]
    assert torch.equal(to_sequences(steps), tokens)


def test_vanilla_is_the_model_itself(model: Any, text: Sequences) -> None:
    measured = Judge(model, routers(model), text.ids).measure(parse("vanilla"), BATCH)
    with torch.no_grad():
        logits = model(text.ids[:, :-1]).logits
    loss = F.cross_entropy(logits.flatten(0, 1), text.ids[:, 1:].flatten(), reduction="none").view(
        SEQUENCES, -1
    )
    assert measured.loss == pytest.approx(loss.mean(dim=1).tolist(), rel=1e-5)
    # the compiled loop's exp rounds otherwise
    assert measured.kl == pytest.approx([0.0] * SEQUENCES, abs=1e-6)
    assert measured.routing == "host"
    assert measured.agreement == [1.0] * SEQUENCES
    assert measured.kept == pytest.approx([1.0] * SEQUENCES)


def test_a_lone_token_gets_vanilla_from_oea(model: Any, text: Sequences) -> None:
    judge = Judge(model, routers(model), text.ids)
    assert judge.measure(parse("oea:1"), 1).loss == judge.measure(parse("vanilla"), 1).loss
    assert judge.measure(parse("pruned:1"), 1).loss != judge.measure(parse("vanilla"), 1).loss


def test_experts_read_are_those_of_the_paper(model: Any, text: Sequences) -> None:
    """Layer by layer, the logits that our hook saw, by the slow reference."""
    found = routers(model)
    judge = Judge(model, found, text.ids)
    seen: list[torch.Tensor] = []
    arm = parse("oea:2")

    def choose(logits: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(logits.clone())
        routing = arm.chooser(found)(to_steps(logits, BATCH), layer)
        return to_sequences(routing.weights), to_sequences(routing.ids.long())

    with torch.inference_mode(), routed(found, SEQUENCES, choose):
        model(text.ids[:, :-1])
    sizes = []
    for group in range(SEQUENCES // BATCH):
        sequences = slice(group * BATCH, (group + 1) * BATCH)
        steps = [logits[sequences, t] for logits in seen for t in range(LENGTH)]
        pools = [
            reference(step, Policy.oea(2), Router(found.k)).pool.sum().item() for step in steps
        ]
        sizes.append(sum(pools) / len(pools))
    measured = judge.measure(arm, BATCH, ranks=(1, 4))
    assert measured.unique == pytest.approx(sizes)
    assert measured.busiest[1] == pytest.approx(sizes)
    assert all(
        size / 4 <= most <= size for most, size in zip(measured.busiest[4], sizes, strict=True)
    )


def test_routers_are_the_models_own_again_afterwards(model: Any, text: Sequences) -> None:
    with torch.no_grad():
        before = model(text.ids).logits
        Judge(model, routers(model), text.ids).measure(parse("pruned:1"), BATCH)
        assert torch.equal(model(text.ids).logits, before)


def test_a_model_without_such_routers_is_refused() -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"^Linear: it has no routers; docs/quality\.md lists"
    ):
        routers(torch.nn.Linear(2, 2))


def run(
    model: Any, text: Sequences, kept: Path, about: dict[str, Any], stop: int | None = None
) -> grid.Plan:
    plan = grid.Plan([parse("vanilla"), parse("oea:2")], [2, 4], 4, [2])
    for done, _ in enumerate(grid.run(model, text, plan, kept, about), start=1):
        if done == stop:
            break
    return plan


def test_an_evaluation_goes_on_where_it_was(
    model: Any, text: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    plan = run(model, text, whole, {"seed": 0})
    run(model, text, parts, {"seed": 0}, stop=3)
    with parts.open("a") as lines:
        lines.write('{"chunk": 0, "ba')  # the machine went down

    measured: list[str] = []
    real = Judge.measure

    def noted(self: Judge, arm: Arm, *rest: Any) -> Measured:
        measured.append(arm.label)
        return real(self, arm, *rest)

    monkeypatch.setattr(Judge, "measure", noted)
    run(model, text, parts, {"seed": 0})
    assert len(measured) == grid.total(plan, text) - 3
    assert grid.read(parts, {"seed": 0}) == grid.read(whole, {"seed": 0})
    rows = grid.rows(grid.read(whole, {"seed": 0}), plan, 0)
    assert [(row["batch"], row["arm"]) for row in rows] == [
        (2, "vanilla"),
        (2, "oea:2"),
        (4, "vanilla"),
        (4, "oea:2"),
    ]
    assert rows[0]["increase"] == (0.0, 0.0, 0.0)
    json.dumps(rows)


def test_another_runs_file_is_left_alone(model: Any, text: Sequences, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    run(model, text, kept, {"seed": 0}, stop=1)
    before = kept.read_text()
    with pytest.raises(grid.OtherRunError, match="is of another run"):
        run(model, text, kept, {"seed": 1})
    assert kept.read_text() == before
