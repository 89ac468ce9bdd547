"""The paper's findings: judged both ways on made-up records, and as the docs show them on ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oea_server.lab.quality import findings
from oea_server.lab.quality.findings import NO, OPEN, YES

ROOT = Path(__file__).parents[3]


def row(
    arm: str, batch: int, increase: float, unique: float = 40, over: float | None = None
) -> dict[str, Any]:
    spread = [over, (over or 0) - 0.05, (over or 0) + 0.05]
    return {
        "arm": arm,
        "kind": arm.partition(":")[0],
        "batch": batch,
        "increase": [increase, increase - 0.002, increase + 0.002],
        "unique": [unique, unique, unique],
        "over_oea": {"unique": None if over is None else spread},
    }


def grid(ours: dict[int, float], pruned: float) -> dict[str, Any]:
    rows = [row("oea:3", batch, loss) for batch, loss in ours.items()]
    return {
        "batches": list(ours),
        "rows": rows + [row("pruned:3", batch, pruned) for batch in ours],
    }


@pytest.mark.parametrize(("pruned", "verdict"), [(0.06, YES), (0.021, OPEN), (0.001, NO)])
def test_pruning(pruned: float, verdict: str) -> None:
    assert findings.dominates(grid({4: 0.02, 16: 0.02, 64: 0.02}, pruned)).verdict == verdict


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [({4: 0.03, 16: 0.02, 64: 0.01}, YES), ({4: 0.02, 16: 0.021}, OPEN), ({4: 0.01, 16: 0.02}, NO)],
)
def test_larger_batches(ours: dict[int, float], verdict: str) -> None:
    assert findings.larger_loses_less(grid(ours, 0.06)).verdict == verdict


@pytest.mark.parametrize(
    ("over", "verdicts"), [(1.3, (YES, YES, YES)), (0.8, (NO, NO, NO)), (0.98, (OPEN, OPEN, OPEN))]
)
def test_knobs(over: float, verdicts: tuple[str, ...]) -> None:
    arms = ("oea:4/p=0.3", "oea:3/max_rank=8", "oea:3/k_max=10")
    rules = {
        "rows": [
            row("vanilla", 16, 0.0, 75),
            row("oea:3", 16, 0.02),
            *(row(arm, 16, 0.03, 40, over) for arm in arms),
        ]
    }
    document = {"rows": rules["rows"][:2]}
    found = findings.findings(grid({4: 0.03, 16: 0.02}, 0.06), rules, document)
    assert tuple(each.verdict for each in found[2:5]) == verdicts
    assert found[5].verdict == YES


def test_batches_of_one_document() -> None:
    mixed = {"rows": [row("vanilla", 16, 0.0, 75), row("oea:3", 16, 0.02)]}
    fewer = {"rows": [row("vanilla", 16, 0.0, 70), row("oea:3", 16, 0.02)]}
    assert findings.homogeneous(mixed, fewer).verdict == NO


@pytest.mark.parametrize("name", ["eval", "eval-glm4-moe"])
def test_the_docs_say_what_the_records_say(name: str) -> None:
    folder = ROOT / "benchmarks/results/2-core-x86_64"
    names = (name, f"{name}-rules", f"{name}-document")
    records = [json.loads((folder / f"{each}.json").read_text()) for each in names]
    page = (ROOT / "docs/quality-results.md").read_text(encoding="utf-8")
    assert findings.shown(findings.findings(*records)) in page
