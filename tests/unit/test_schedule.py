import pytest
import torch

from oea_server.routing import Policy
from oea_server.routing.knobs import Knobs
from oea_server.routing.policy import UNBOUNDED
from oea_server.routing.schedule import SHARE, Schedule, default_schedule, number_or_schedule


@pytest.mark.parametrize("text", ["3", "1:8,2:6,4:5,8:4,16:3", "4:3", "1:8,16:3; 2=5; 7=1:8,4:6"])
def test_text_round_trips(text: str) -> None:
    assert str(Schedule.of(text)) == text
    assert Schedule.of(str(Schedule.of(text))) == Schedule.of(text)


def test_a_step_holds_from_its_batch_size_on() -> None:
    schedule = Schedule.of("1:8,2:6,4:5,8:4,16:3")
    assert [schedule.at(batch, 0) for batch in (1, 2, 3, 4, 7, 8, 15, 16, 500)] == [
        8,
        6,
        6,
        5,
        5,
        4,
        4,
        3,
        3,
    ]


def test_below_the_first_step_nothing_holds() -> None:
    assert Schedule.of({4: 3}).at(3, 0) is None
    assert Schedule.of({4: 3}).at(4, 0) == 3


def test_layers_override_the_default() -> None:
    schedule = Schedule.of("1:8,16:3; 0-2=8; 5=2")
    assert [schedule.at(16, layer) for layer in range(7)] == [8, 8, 8, 3, 3, 2, 3]


def test_mapping_and_number_and_text_mean_the_same() -> None:
    assert Schedule.of({16: 3, 1: 8}) == Schedule.of("1:8,16:3")
    assert Schedule.of(3) == Schedule.of("3") == Schedule.of("1:3")
    assert hash(Schedule.of(3)) == hash(Schedule.of("3"))


@pytest.mark.parametrize("text", ["1:0.0,16:0.13", "4:0.5; 3=0.1", "1e-05", "0.5; 0=2:0.25"])
def test_shares_by_batch_size_round_trip_too(text: str) -> None:
    found = Schedule.of(text, SHARE)
    assert str(found) == text
    assert Schedule.of(str(found), SHARE) == found


def test_what_never_changes_is_a_number() -> None:
    for given in (0.25, "0.25", "1:.25", {1: 0.25}):
        assert number_or_schedule(given, SHARE) == 0.25
    assert number_or_schedule("2:0.25", SHARE) == Schedule.of({2: 0.25}, SHARE)
    assert (
        Policy.oea(2).share,
        Policy.oea(2, share=0).share,
        Policy.oea(2, share="0.0").share,
    ) == (None,) * 3
    assert Policy.oea(2, share="0.1", mix="0.5") == Policy.oea(2, share=0.1, mix=0.5)


def test_numbers_of_a_policy_are_floats_whatever_was_given() -> None:
    """The loop is compiled for them: others would cost seconds while it serves."""
    for policy in (Policy.oea(2, p=1, share=0, mix=1), Policy.oea(2, share={4: 0}, mix={4: 1})):
        found = policy.numbers(8, 0, k=4, num_experts=16)
        assert [type(each) for each in (found.p, found.share, found.mix)] == [float] * 3


def test_a_share_in_one_layer_makes_a_table_of_its_own() -> None:
    policy = Policy.oea(4, share="1:0,8:0.25; 1=0.5", mix="8:0.5")
    knobs = Knobs({0: 4, 1: 4}, 16, torch.device("cpu"))
    knobs.write(policy)
    for layer, share in ((0, 0.25), (1, 0.5)):
        numbers, _ = knobs.at(layer, torch.tensor(9))
        assert [float(each) for each in numbers] == [4, 4, 16, UNBOUNDED, 1, share, 0.5]
        assert policy.numbers(9, layer, k=4, num_experts=16) == (
            4,
            4,
            16,
            UNBOUNDED,
            1.0,
            share,
            0.5,
        )


@pytest.mark.parametrize("k", [1, 2, 4, 8, 10])
def test_the_default_is_vanilla_for_one_token_and_falls_with_the_batch(k: int) -> None:
    schedule = default_schedule(k)
    k0s = [schedule.at(batch, 0) or 0 for batch in range(1, 65)]
    assert k0s[0] == k
    assert k0s == sorted(k0s, reverse=True)
    assert min(k0s) >= 1


def test_the_default_for_top_8_is_the_documented_one() -> None:
    assert str(default_schedule(8)) == "1:8,2:5,4:4,16:3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not BATCH:K0"),
        ("1:8,4", "'4' is not BATCH:K0"),
        ("0", "k0 0 is outside 1..64"),
        ("65", "k0 65 is outside 1..64"),
        ("0:8", "batch size 0 is below 1"),
        ("8:4,2:6", "batch sizes must rise"),
        ("2:6,2:5", "batch sizes must rise"),
        ("3; x=2", "'x=2' is not LAYER=SCHEDULE"),
        ("3; 4", "'4' is not LAYER=SCHEDULE"),
        ("3; 9-4=2", "layers 9-4 run backwards"),
        ("3; 1=0", "k0 0 is outside 1..64"),
    ],
)
def test_bad_schedules_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        Schedule.of(text)
