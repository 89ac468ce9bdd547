"""Whether two harnesses agree, on planted answers; and the page about the demo models' tasks holds
to its record."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import harnesses, task_groups
from oea_server.lab.qualify.own_tasks import TELLING, Model

ROOT = Path(__file__).parents[3]
RECORDS = sorted((ROOT / "benchmarks" / "results").glob("*/harnesses-*.json"))


def said(right: int, of: int) -> tuple[list[bool], dict[str, float]]:
    share = right / of
    return [True] * right + [False] * (of - right), {
        "accuracy": share,
        "error": (share * (1 - share) / (of - 1)) ** 0.5,
    }


@pytest.mark.parametrize(
    ("ours", "theirs", "agree"), [(150, 150, True), (150, 165, True), (150, 200, False)]
)
def test_they_agree_within_their_errors(ours: int, theirs: int, agree: bool) -> None:
    mine, _ = said(ours, 300)
    answers, lm_eval = said(theirs, 300)
    row = harnesses.compared("vanilla", mine, answers, lm_eval, 12.0)
    assert row["agree"] is agree
    assert row["same_task_by_task"] == pytest.approx(1 - abs(ours - theirs) / 300)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: str(path.stem))
def test_both_harnesses_agreed(path: Path) -> None:
    record: dict[str, Any] = json.loads(path.read_text())
    assert all(row["agree"] for row in record["rows"])


def test_the_page_of_tasks_shows_what_was_measured() -> None:
    record = json.loads(task_groups.RESULT.read_text())
    page = (ROOT / "docs" / "qualify-tasks.md").read_text()
    for line in task_groups.lines(record):
        assert line in page


@pytest.mark.parametrize("model", Model)
def test_a_models_groups_are_those_that_can_tell(model: Model) -> None:
    record = json.loads(task_groups.RESULT.read_text())
    assert set(TELLING[model]) == set(task_groups.telling(record["models"][model]))
