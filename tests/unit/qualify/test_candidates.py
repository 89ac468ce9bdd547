"""Candidates as they are written, nonsense, and what a server is switched to for each."""

from __future__ import annotations

import pytest

from oea_server.lab.qualify import candidates
from oea_server.lab.qualify.candidates import CandidateError

FOUND = {"policy": "shadow", "k0": "auto", "share": "auto", "min_batch": 2, "default_tier": None}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("k0=1", {"policy": "oea", "k0": 1}),
        (" k0 = 3, share=0.2", {"policy": "oea", "k0": 3, "share": 0.2}),
        ("policy=pruned,k0=4", {"policy": "pruned", "k0": 4}),
        ("policy=vanilla", {"policy": "vanilla"}),
        ("k0=1:8,2:6,16:3,min-batch=3", {"policy": "oea", "k0": "1:8,2:6,16:3", "min_batch": 3}),
        ("max_rank=none,k0=2", {"policy": "oea", "max_rank": None, "k0": 2}),
    ],
)
def test_candidates(text: str, values: dict[str, object]) -> None:
    (found,) = candidates.read([text])
    assert found.values() == values


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([], "--candidate: give at least one"),
        (["nonsense"], "'nonsense' is not KNOB=VALUE"),
        (["k0="], "'k0=' is not KNOB=VALUE"),
        ([""], "'' is not KNOB=VALUE"),
        (["k0=1,k0=2"], "k0 is given twice"),
        (["k0=1", " k0=1"], "--candidate= k0=1: is given twice"),
        (["k0=1", "policy=oea,k0=1"], "--candidate=policy=oea,k0=1: is given twice"),
        (["k1=1"], "oea_k1: no such knob; did you mean oea_k0"),
        (["wish_floor=1"], "oea_wish_floor: no such knob"),
        (["k0=0"], "k0=0"),
        (["k0=x"], "--candidate=k0=x: "),
        (["share=2"], "share=2"),
        (["policy=best"], "oea_policy=best: input should be 'oea'"),
        (["min_batch=0"], "oea_min_batch=0: input should be greater than or equal to 1"),
    ],
)
def test_nonsense_is_refused_by_the_knobs_own_line(texts: list[str], said: str) -> None:
    with pytest.raises(CandidateError) as caught:
        candidates.read(texts)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_variables_of_this_process_say_nothing_of_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OEA_POOL", "nonsense")
    assert candidates.read(["k0=1"])


def test_each_arm_turns_back_what_another_turned() -> None:
    found = candidates.arms(candidates.read(["k0=1", "share=0.2"]), FOUND)
    assert found == {
        "vanilla": {"policy": "vanilla", "k0": "auto", "share": "auto"},
        "k0=1": {"policy": "oea", "k0": 1, "share": "auto"},
        "share=0.2": {"policy": "oea", "k0": "auto", "share": 0.2},
    }
    assert candidates.as_found(candidates.read(["k0=1"]), FOUND) == {
        "policy": "shadow",
        "k0": "auto",
    }


def test_a_default_tier_would_route_instead_of_the_candidate() -> None:
    found = candidates.arms(candidates.read(["k0=1"]), {**FOUND, "default_tier": "gold"})
    assert [each["default_tier"] for each in found.values()] == [None, None]
    asked = candidates.arms(
        candidates.read(["default_tier=bronze"]), {**FOUND, "default_tier": "gold"}
    )
    assert [each["default_tier"] for each in asked.values()] == [None, "bronze"]
    assert (
        candidates.as_found(candidates.read(["k0=1"]), {**FOUND, "default_tier": "gold"})[
            "default_tier"
        ]
        == "gold"
    )
