"""What an arm says is what is measured: anything else is one line, naming the arm, the knob and its
bounds."""

from __future__ import annotations

import pytest

from oea_server.lab.quality.arms import ArmError, check, parse
from oea_server.lab.quality.grammar import KINDS, read_all
from oea_server.lab.quality.routed import Routers
from oea_server.routing import Router

WRONG = [
    ("oea:3/weights=nonsense", "weights=nonsense is none of scored"),
    ("oea:3/weights=half", "weights=half is none of scored"),
    ("oea:3/mix=-1", "mix=-1 is outside 0 <= mix <= 1"),
    ("share:0.13/mix=5", "mix=5 is outside 0 <= mix <= 1"),
    ("share:7", "tau=7 is outside 0 <= tau <= 1"),
    ("share:nan", "tau=nan is not a finite number"),
    ("share:0.1/mix=inf", "mix=inf is not a finite number"),
    ("oea:3/p=0", "p=0 is outside 0 < p <= 1"),
    ("oea:3/p=0.5/p=0.7", "p is given twice"),
    ("oea:3/k0=4", "k0 is given twice"),
    ("oea:3/p", "p has no value"),
    ("oea:3/p=", "p has no value"),
    ("oea:3/", "oea has no knob without a name"),
    ("oea:3/mix=0.5/weights=scored", "mix and weights exclude each other"),
    ("oea:3/weights=scored/p=0.5", "p and weights exclude each other"),
    ("oea:3/share=1", "share=1 is outside 0 <= share < 1"),
    ("fill:3/share=-0.1", "share=-0.1 is outside 0 <= share < 1"),
    ("fill:3/mix=2", "mix=2 is outside 0 <= mix <= 1"),
    ("oea:3/weights=scored/max_rank=8", "max_rank and weights exclude each other"),
    ("oea:3/mix=0.5/k_max=2", "k_max=2 is below k0=3"),
    ("oea:1_0", "k0=1_0 is not a whole number"),
    ("budget:0", "rank_experts=0 is outside 1 <= rank_experts <= 1024"),
    ("fill:3/ranks=0", "ranks=0 is outside 1 <= ranks <= 1024"),
    ("vote:-1", "experts=-1 is outside 1 <= experts <= 1024"),
    ("vote:24/floor=0", "floor=0 is outside 1 <= floor <= 64"),
    ("vanilla:", "vanilla takes no number"),
    ("", "an arm is missing"),
    ("oea:3;;oea:4", "an arm is missing"),
    ("oea:3;oea:03", "oea:3: is given twice"),
    ("fill:3;fill:3/ranks=8", "fill:3/ranks=8: is given twice, also as fill:3"),
    ("split:3/ranks=3", "ranks=3: batches of 16 tokens do not divide over them"),
]


@pytest.mark.parametrize(("text", "says"), WRONG)
def test_a_wrong_arm_is_one_line(text: str, says: str) -> None:
    with pytest.raises(ArmError) as error:
        read_all(text, [16])
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("oea:5", "k0=5 is above 4, the model's top k"),
        ("split:5/ranks=2", "k0=5 is above 4"),
        ("vote:8/floor=5", "floor=5 is above 4"),
        ("oea:3/k_max=17", "k_max=17 is above 16"),
        ("share:0.1/k_max=17", "k_max=17 is above 16"),
        ("vote:17", "experts=17 is above 16"),
        ("fill:3/ranks=3", "ranks=3: the model's 16 experts do not divide"),
        ("budget:9/ranks=2", "rank_experts=9 is above 8, the experts of a rank"),
    ],
)
def test_an_arm_that_asks_for_more_than_the_model_has_is_refused(text: str, says: str) -> None:
    with pytest.raises(ArmError, match=says) as error:
        check(parse(text), Routers([], [Router(4)], 16), 4)
    assert str(error.value).startswith(f"{text}: ")


def test_a_mixture_where_weights_are_not_divided_is_refused() -> None:
    as_scored = Routers([], [Router(4, renormalize=False)], 16)
    for text in ("oea:3/mix=0.5", "fill:3/mix=0.5"):
        with pytest.raises(ArmError, match=f"{text}: mix=0.5 has no effect"):
            check(parse(text), as_scored, 4)
    check(parse("oea:3/share=0.1"), as_scored, 4)


def test_labels_are_canonical_and_vanilla_comes_first() -> None:
    found = read_all("oea:03; share:0.10/mix=0.50/k_max=10; vote:24/power=1.0; vanilla", [16])
    assert [each.label for each in found] == [
        "vanilla",
        "oea:3",
        "share:0.1/mix=0.5/k_max=10",
        "vote:24/power=1",
    ]
    assert {each.kind for each in found} <= KINDS.keys()
