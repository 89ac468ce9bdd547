"""What two ranks have written down of their steps, and what is found wrong with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadtest.chaos.ranks import agreement


def step(batch: int, *layers: list[Any]) -> dict[str, Any]:
    return {"batch": batch, "of_ranks": [], "layers": list(layers)}


GOOD = [step(8, [0, "oea 3", 11], [1, "oea 3", 12]), step(4, [0, "vanilla None", None])]


def test_equal_records_by_one_policy_a_step_are_right() -> None:
    text = "\n".join(map(json.dumps, GOOD))
    assert agreement([text, "", text]) == ("both ranks wrote the same 2 steps, by 2 policies", [])


@pytest.mark.parametrize(
    ("other", "wrong"),
    [
        (
            [GOOD[0], step(4, [0, "vanilla None", 5])],
            "the ranks' steps differ from number 1 of 2 and 2 on",
        ),
        (GOOD[:1], "the ranks' steps differ from number 1 of 2 and 1 on"),
        ([], "1 ranks wrote steps down, not 2"),
    ],
)
def test_a_rank_that_went_another_way_is_found(other: list[dict[str, Any]], wrong: str) -> None:
    assert agreement(["\n".join(map(json.dumps, each)) for each in (GOOD, other)])[1] == [wrong]


@pytest.mark.parametrize(
    ("bad", "wrong"),
    [
        (
            step(8, [0, "oea 3", 11], [1, "oea 4", 12]),
            "1 steps were routed by more than one policy",
        ),
        (step(8, [0, "oea 3", 11, False]), "1 layers are no recount of their tokens' rows"),
        (step(8, [0, "vanilla None", None]), "no step was routed"),
    ],
)
def test_a_step_that_is_wrong_on_both_is_found(bad: dict[str, Any], wrong: str) -> None:
    text = json.dumps(bad)
    assert agreement([text, text])[1] == [wrong]
