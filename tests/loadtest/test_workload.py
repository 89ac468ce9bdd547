"""Lengths, prompts, conversations and arrivals: their distributions, and that a seed settles
them."""

from __future__ import annotations

import random
import statistics
from itertools import islice, pairwise

import pytest
from oea_server_demo import MODEL
from tokenizers import Tokenizer

from loadtest import arrivals, lengths, words, workload
from loadtest.lengths import LengthError


def test_fixed_lengths() -> None:
    assert {lengths.parse("fixed:64", "output").draw(random.Random(i)) for i in range(20)} == {64}


def test_lognormal_lengths() -> None:
    dice = random.Random(1)
    drawn = [lengths.parse("lognormal:200:0.8", "prompt").draw(dice) for _ in range(4000)]
    assert statistics.median(drawn) == pytest.approx(200, rel=0.05)
    low, _, high = statistics.quantiles(drawn, n=4)
    assert high / low == pytest.approx(2.94, rel=0.1)  # exp(2 * 0.6745 * 0.8)
    assert min(drawn) >= 1


@pytest.mark.parametrize("side", ["prompt", "output"])
def test_sharegpt_lengths(side: lengths.Side) -> None:
    dice, each = random.Random(2), lengths.sharegpt(side)
    drawn = [each.draw(dice) for _ in range(8000)]
    low, high = lengths.SHAREGPT_BOUNDS
    assert low <= min(drawn) <= max(drawn) <= high
    # less what is cut off
    assert statistics.fmean(drawn) == pytest.approx(lengths.SHAREGPT_MEANS[side], rel=0.15)


@pytest.mark.parametrize(
    "text",
    ["fixed", "fixed:0", "fixed:1.5", "lognormal:9", "lognormal:9:9", "sharegpt:1", "x", "fixed:a"],
)
def test_a_wrong_length_is_refused(text: str) -> None:
    with pytest.raises(LengthError, match=f"prompt={text}"):
        lengths.parse(text, "prompt")


@pytest.mark.parametrize("tokens", [8, 32, 128, 1000])
def test_prompts_have_about_so_many_tokens_of_the_demo_model(tokens: int) -> None:
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    dice = random.Random(3)
    counts = [len(tokenizer.encode(words.text(dice, tokens)).ids) for _ in range(200)]
    assert statistics.fmean(counts) == pytest.approx(tokens, rel=0.05, abs=1)


def test_no_two_prompts_begin_alike() -> None:
    dice = random.Random(4)
    assert len({words.text(dice, 32).rsplit(" ", 10)[0][:40] for _ in range(500)}) == 500


def test_a_conversation_follows_from_its_names() -> None:
    tenant = workload.parse("t prompt=lognormal:20:0.5 output=lognormal:20:0.5 cancel=0.5")

    def asked(seed: int, user: str, number: int) -> workload.Ask:
        return next(workload.conversation(tenant, seed, user, number))

    assert asked(1, "0.0", 3) == asked(1, "0.0", 3)
    others = [asked(2, "0.0", 3), asked(1, "0.1", 3), asked(1, "0.0", 4)]
    assert all(asked(1, "0.0", 3).messages != other.messages for other in others)


def test_a_pairs_second_has_the_same_lengths_in_other_words() -> None:
    tenant = workload.parse("t prompt=lognormal:20:0.5 output=lognormal:20:0.5")
    a, b = (next(workload.conversation(tenant, 0, "pair 0", 0, arm)) for arm in "ab")
    assert a.tokens == b.tokens
    assert a.messages != b.messages


def test_turns_carry_what_was_said() -> None:
    asks = workload.conversation(workload.parse("t turns=3 prefix=20"), 0, "u", 0)
    first = next(asks)
    second, third = workload.following(asks, "one"), workload.following(asks, "two")
    assert second is not None
    assert third is not None
    assert workload.following(asks, "three") is None
    assert [message["role"] for message in first.messages] == ["system", "user"]
    assert third.messages[: len(second.messages)] == second.messages
    assert [m["content"] for m in third.messages if m["role"] == "assistant"] == ["one", "two"]
    other = next(workload.conversation(workload.parse("t turns=3 prefix=20"), 0, "v", 0))
    assert other.messages[0] == first.messages[0]  # the prefix is shared


def test_cancels_have_their_share() -> None:
    tenant = workload.parse("t cancel=0.25 output=fixed:10")
    after = [next(workload.conversation(tenant, 0, "u", i)).cancel_after for i in range(2000)]
    assert sum(each is not None for each in after) / 2000 == pytest.approx(0.25, abs=0.03)
    assert {each for each in after if each is not None} == set(range(10))


def test_tenants_have_their_weights() -> None:
    tenants = [workload.parse("a weight=3"), workload.parse("b weight=1")]
    picked = [workload.pick(tenants, 0, i).name for i in range(2000)]
    assert picked.count("a") / 2000 == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    "part", ["weight=0", "turns=0", "prefix=-1", "cancel=2", "key=", "mood=good", "turns=x"]
)
def test_a_wrong_part_is_refused(part: str) -> None:
    with pytest.raises(LengthError, match=f"tenant t: {part}"):
        workload.parse(f"t {part}")


def until(text: str, seconds: float, seed: int = 0) -> list[float]:
    found: list[float] = []
    for time in arrivals.parse(text).times(seed):
        if time > seconds:
            return found
        found.append(time)
    raise AssertionError


def test_constant_arrivals_are_even() -> None:
    assert list(islice(arrivals.parse("constant:4").times(0), 5)) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_poisson_arrivals_are_random_at_their_rate_and_seeded() -> None:
    times = until("poisson:20", 200)
    assert len(times) == pytest.approx(4000, rel=0.06)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert statistics.stdev(gaps) == pytest.approx(statistics.fmean(gaps), rel=0.1)  # exponential
    assert times == until("poisson:20", 200)
    assert times != until("poisson:20", 200, seed=1)


def test_a_ramp_rises() -> None:
    times = until("ramp:0:40:100", 200)
    counts = [sum(start <= time < start + 50 for time in times) for start in (0, 50, 100, 150)]
    assert counts == pytest.approx([500, 1500, 2000, 2000], rel=0.12)


def test_bursts_come_and_go() -> None:
    times = until("burst:2:40:10:2", 100)
    inside = sum(time % 10 < 2 for time in times)
    assert inside == pytest.approx(800, rel=0.12)
    assert len(times) - inside == pytest.approx(160, rel=0.3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "constant",
        "constant:0",
        "poisson:-1",
        "ramp:1:2",
        "burst:9:1:10:2",
        "burst:1:9:2:2",
        "constant:nan",
    ],
)
def test_wrong_arrivals_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is none of constant:RATE"):
        arrivals.parse(text)
