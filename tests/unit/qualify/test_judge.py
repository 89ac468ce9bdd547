"""Verdicts, exit codes, and what is not concluded from."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from oea_server.lab.qualify import judge
from tests.unit.qualify.simulated import Record, record

NAME = "k0=1"


def judged(made: Record) -> Record:
    return dict(judge.judged(made)["verdicts"][NAME])


def passing() -> Record:
    return record(200, discordance=0.0)


def answers(made: Record, arm: str) -> list[Record]:
    return [each for each in made["answers"] if each["arm"] == arm]


def test_the_plain_cases() -> None:
    for made, verdict, code in [
        (passing(), judge.NO_WORSE, 0),
        (record(400, difference=-0.2, discordance=0.25), judge.WORSE, 1),
        (record(40), judge.CANNOT_TELL, 3),
    ]:
        found = judge.judged(made)
        assert found["verdicts"][NAME]["verdict"] == verdict
        assert judge.exit_code(found) == code
        assert found["verdicts"][NAME]["refusals"] == []
        assert "verdicts" not in made


def test_why_names_the_interval_the_margin_and_the_pairs_that_it_takes() -> None:
    found = judged(record(40))
    assert "on both sides of the margin of 5 points" in found["why"]
    assert (
        f"by {found['difference']['needed']:,} such pairs, and these are 40: take more prompts"
        in found["why"]
    )
    assert "within the margin of 5 points" in judged(passing())["why"]
    assert (
        "beyond the margin of 5 points"
        in judged(record(400, difference=-0.2, discordance=0.25))["why"]
    )


def test_a_small_loss_that_many_prompts_show_is_not_blamed_on_their_number() -> None:
    found = judged(record(1500, difference=-0.045, discordance=0.1))
    assert (found["verdict"], found["refusals"]) == (judge.CANNOT_TELL, [])
    assert "this one likely loses something" in found["why"]


def test_a_loss_beyond_the_margin_that_may_be_chance_is_not_called_worse() -> None:
    made = record(150, discordance=0.0)
    for each in [each for each in answers(made, NAME) if each["correct"]][:10]:
        each["correct"] = False
    found = judged(made)
    assert found["difference"]["value"] < -0.05 < found["difference"]["high"]
    assert found["verdict"] == judge.CANNOT_TELL


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (["no worse", "no worse"], 0),
        (["no worse", "cannot tell"], 3),
        (["worse", "cannot tell"], 1),
        (["no worse", "worse", "cannot tell"], 1),
    ],
)
def test_of_several_candidates_the_worst_counts(verdicts: list[str], code: int) -> None:
    made = {"verdicts": {str(i): {"verdict": each} for i, each in enumerate(verdicts)}}
    assert judge.exit_code(made) == code


def alone(made: Record) -> None:
    made["blocks"][-1]["batch"] = 1.6


def vanilla_alone(made: Record) -> None:
    made["blocks"][0]["batch"] = 1.99


def unmeasured(made: Record) -> None:
    made["blocks"][1]["batch"] = None


def no_blocks(made: Record) -> None:
    made["blocks"] = []


def unchecked(made: Record) -> None:
    for each in made["answers"]:
        each["correct"] = None


def from_prefill(made: Record) -> None:
    for each in made["answers"]:
        each["tokens"] = 1


def one_is_missing(made: Record) -> None:
    made["answers"].remove(answers(made, NAME)[3])


def other_seed(made: Record) -> None:
    answers(made, NAME)[3]["seed"] = 7


def twice(made: Record) -> None:
    made["answers"].append(dict(answers(made, NAME)[3]))


def silent(made: Record) -> None:
    made["answers"] = answers(made, "vanilla")


def nothing_right(made: Record) -> None:
    for each in made["answers"]:
        each["correct"] = False


def hardly_right(made: Record) -> None:
    for i, each in enumerate(made["answers"]):
        each["correct"] = i < 10


REFUSALS = {
    alone: "1.60 requests in a decode step in round 2 of k0=1: below 2",
    vanilla_alone: "1.99 requests in a decode step in round 1 of vanilla: below 2",
    unmeasured: "the decode batch was not measured in round 1 of k0=1",
    no_blocks: "no decode batch was measured of k0=1",
    unchecked: "none of the 200 pairs of answers could be checked",
    from_prefill: "no answer has a second token",
    one_is_missing: "1 answers of vanilla and 0 of k0=1 have no partner",
    other_seed: "1 answers of vanilla and 1 of k0=1 have no partner",
    twice: "0 answers of vanilla and 1 of k0=1 have no partner",
    silent: "k0=1 has answered nothing",
    nothing_right: "vanilla itself is right in 0.0%",
    hardly_right: "a candidate that says nothing could pass",
}


@pytest.mark.parametrize(
    ("spoil", "said"), REFUSALS.items(), ids=[each.__name__ for each in REFUSALS]
)
def test_nothing_is_concluded(spoil: Callable[[Record], None], said: str) -> None:
    """Of a run that passes, but for what is wrong with it."""
    made = passing()
    assert judged(made)["verdict"] == judge.NO_WORSE
    spoil(made)
    found = judged(made)
    assert found["verdict"] == judge.CANNOT_TELL
    assert any(said in line for line in found["refusals"]), found["refusals"]
    assert all("\n" not in line for line in found["refusals"])
    assert found["why"] == found["refusals"][0]
    assert judge.exit_code(judge.judged(made)) == 3


def test_nor_that_it_is_worse() -> None:
    made = record(400, difference=-0.2, discordance=0.25)
    alone(made)
    assert judged(made)["verdict"] == judge.CANNOT_TELL


def test_a_candidate_that_says_nothing_does_not_pass() -> None:
    for right in (0.03, 0.1, 0.5, 0.9):
        made = record(300, right=right, discordance=0.0)
        for each in answers(made, NAME):
            each.update(correct=False, text="", tokens=0, empty=True)
        assert judged(made)["verdict"] != judge.NO_WORSE


def test_what_cannot_be_checked_beside_what_can_is_wrong() -> None:
    made = record(200, discordance=0.0)
    for each in answers(made, NAME)[:40]:
        each["correct"] = None
    found = judged(made)
    assert (found["difference"]["won"], found["difference"]["pairs"]) == (0, 200)
    assert found["difference"]["lost"] > 20
    assert any(
        "40 of the candidate's answers and 0 of vanilla's could not be checked" in note
        for note in found["notes"]
    )


def test_what_neither_answer_could_be_checked_for_is_left_out() -> None:
    made = record(200, discordance=0.0)
    for arm in ("vanilla", NAME):
        for each in answers(made, arm)[:40]:
            each["correct"] = None
    assert judged(made)["difference"]["pairs"] == 160


def test_what_is_counted_of_both() -> None:
    made = record(100, discordance=0.0)
    for each in answers(made, NAME)[:7]:
        each.update(empty=True, tokens=0)
    for each in answers(made, NAME):
        each["tokens"] *= 2
        each["cut"] = True
    found = judged(made)
    assert (found["candidate"]["empty"], found["vanilla"]["empty"]) == (7, 0)
    assert found["candidate"]["cut"] == 100
    assert (
        1.7 < found["longer"]["low"] < found["longer"]["value"] < found["longer"]["high"] <= 2.001
    )
    assert found["cost"]["unique"]["ratio"] == {"value": 0.5, "low": 0.5, "high": 0.5, "told": True}
    assert found["cost"]["tpot"]["ratio"]["value"] == pytest.approx(0.8)
    assert [each["group"] for each in found["groups"]] == ["copy", "count"]
    assert any("were cut at the token limit" in note for note in found["notes"])
    assert any(
        "7 of the candidate's answers are empty, 0 of vanilla's" in note for note in found["notes"]
    )


def test_while_a_run_goes_on_only_the_share_that_changed_is_told() -> None:
    made = record(100, candidates=("k0=1", "k0=2"), difference=-0.1, discordance=0.2)
    better = record(100, candidates=("k0=1", "k0=2"), difference=-0.1, discordance=0.2)
    for each in better["answers"]:
        each["arm"] = {"vanilla": "k0=1", "k0=1": "vanilla"}.get(each["arm"], each["arm"])
    assert len(judge.so_far(made)) == 2
    assert judge.so_far(made)[0].startswith("k0=1: ")
    assert judge.so_far(made)[0] == judge.so_far(better)[0]
    made["answers"] = []
    assert judge.so_far(made) == []


def test_speed_is_compared_round_by_round() -> None:
    made = record(100, rounds=3)
    for each in made["blocks"]:
        slow = 10.0 if each["round"] == 1 else 1.0  # the machine had something else to do
        each["tpot"] = slow * (
            0.05 if each["arm"] == "vanilla" else (0.03, 0.035, 0.05)[each["round"]]
        )
    assert judged(made)["cost"]["tpot"]["ratio"] == {
        "value": pytest.approx(0.7),
        "low": pytest.approx(0.6),
        "high": pytest.approx(1.0),
        "told": False,
    }


def test_what_a_reader_is_told() -> None:
    made = passing()
    for each in made["blocks"]:
        each["unique"] = 72.0
    assert any("nothing was bought" in note for note in judged(made)["notes"])
    made = passing()
    for each in answers(made, NAME):
        each["tokens"] *= 1.3  # a token takes 0.8 of vanilla's time
    assert any("took 1.04 times as long" in note for note in judged(made)["notes"])
    made["blocks"][1]["batch"] = 11.5
    assert any(
        "13.5 requests with the candidate and 15.5 with vanilla" in note
        for note in judged(made)["notes"]
    )
    made["blocks"][1]["tpot"] *= 1.2
    assert any(
        "do not tell whether a token took less time" in note for note in judged(made)["notes"]
    )
    made = passing()
    for each in made["answers"]:
        each["correct"] = True
    assert any("too easy" in note for note in judged(made)["notes"])
    for each in made["answers"]:
        each["check"] = "agree"
    assert any("only compared with vanilla's own" in note for note in judged(made)["notes"])
    assert any("one round" in note for note in judged(record(100, rounds=1))["notes"])


def test_a_group_that_suffers_is_named() -> None:
    made = record(400, discordance=0.0, margin=0.2)
    for each in [each for each in answers(made, NAME) if each["group"] == "count"][:130]:
        each["correct"] = False
    assert any("worse than the margin in count" in note for note in judged(made)["notes"])
