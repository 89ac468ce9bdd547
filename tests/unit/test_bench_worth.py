"""Whether T is worth saving, on planted timings: a flat line, noise, a steep line, the paper's GPU,
slow experts."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oea_server.lab.bench import report, worth
from oea_server.lab.bench.fit import fit
from oea_server.lab.bench.paper import QWEN3_30B, QWEN3_235B, VANILLA, Published

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
RECORDS = sorted(RESULTS.glob("*/moe-*.json"))
EXPERTS = {
    "vanilla": 48.8,
    "random": 82.0,
    "oea:3": 25.1,
    "oea:4": 29.9,
    "oea:5": 35.1,
    "oea:6": 40.3,
    "oea:7": 44.4,
}


def planted(
    latency: Callable[[float], float],
    memory_us: float,
    experts: dict[str, float] = EXPERTS,
    ranks: int = 1,
    wide: float = 0.0,
) -> dict[str, Any]:
    """A record of one batch size whose layers took what `latency` says, in µs, of the experts that
    they read.

    Args:
        wide: between the quartiles of a turn over vanilla's.
    """
    times = {policy: latency(read) for policy, read in experts.items()}
    line = fit(list(experts.values()), list(times.values()))
    fitted: dict[str, float | None] = {"slope_us": None, "intercept_us": None, "r2": None}
    if line is not None:
        fitted = {"slope_us": line.slope, "intercept_us": line.intercept, "r2": line.r2}
    rows = [
        {
            "policy": policy,
            "batch": 16,
            "unique_experts": read,
            "latency_us": times[policy],
            "floor_us": read * memory_us,
            "routing_us": 0.0,
            "routing_share": 0.0,
            "over_vanilla": times[policy] / times["vanilla"] if "vanilla" in times else None,
            "over_vanilla_quartiles": (
                [times[policy] / times["vanilla"] + wide / 2 * end for end in (-1, 1)]
                if "vanilla" in times
                else None
            ),
        }
        for policy, read in experts.items()
    ]
    fits = [{"batch": 16, "memory_us_per_expert": memory_us, **fitted}]
    return {"rows": rows, "fits": fits, "preset": {"ranks": ranks}, "repeats": 5}


def judgement(record: dict[str, Any]) -> dict[str, Any]:
    (only,) = worth.judged(record)
    assert f"**{worth.WORDS[only['verdict']]}**; {only['why']}" in "\n".join(worth.lines(record))
    return only


def shaken(latency: Callable[[float], float], by: float, seed: int) -> Callable[[float], float]:
    dice = random.Random(seed)
    return lambda experts: latency(experts) * (1 + by * dice.gauss(0, 1))


@pytest.mark.parametrize(
    ("published", "follows", "memory_us"), [(QWEN3_30B, 0.81, 2.82), (QWEN3_235B, 0.56, 1.41)]
)
def test_on_the_papers_gpu_the_papers_line_holds(
    published: Published, follows: float, memory_us: float
) -> None:
    names = {k0: "vanilla" if k0 == VANILLA else f"oea:{k0}" for k0 in published.experts}
    experts = {names[k0]: read for k0, read in published.experts.items()}
    took = {published.experts[k0]: latency for k0, latency in published.latency_us.items()}
    found = judgement(planted(took.__getitem__, memory_us, experts))
    assert found["verdict"] == worth.HOLDS
    assert found["follows"][0] == pytest.approx(follows, abs=0.01)
    assert found["r2"] > 0.99


def test_a_steep_line_says_what_half_the_experts_save() -> None:
    found = judgement(planted(lambda read: 10 + 3 * read, memory_us=2.9))
    assert found["verdict"] == worth.HOLDS
    assert found["of_bandwidth"] == pytest.approx(2.9 * 48.8 / (10 + 3 * 48.8))
    assert "the experts reach 90 % of the bandwidth" in found["why"]
    assert "half the experts take 47 % off the layer" in found["why"]


def test_experts_at_seven_percent_of_the_bandwidth_on_a_flat_line_gain_nothing() -> None:
    """As on the public trial: 1626 to 1748 tokens a second, whatever the budget was."""
    whole = 1000.0
    found = judgement(
        planted(shaken(lambda read: whole, 0.002, 1), memory_us=0.07 * whole / EXPERTS["vanilla"])
    )
    assert found["verdict"] == worth.GAINS_NOTHING
    assert "the experts reach 7 % of the bandwidth" in found["why"]
    assert "no, nothing is gained here" in worth.WORDS[found["verdict"]]


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_verdict(seed: int) -> None:
    found = judgement(planted(shaken(lambda read: 1000.0, 0.3, seed), memory_us=10))
    assert found["verdict"] == worth.UNKNOWN
    assert "--repeats" in found["why"]


def test_noise_around_a_steep_line_is_told_from_it_in_most_draws() -> None:
    verdicts = [
        judgement(planted(shaken(lambda read: 10 + 3 * read, 0.02, seed), 2.9))["verdict"]
        for seed in range(100)
    ]
    assert verdicts.count(worth.HOLDS) >= 95
    assert worth.GAINS_NOTHING not in verdicts


def test_noise_around_a_line_of_little_is_called_little() -> None:
    """R² is small there: the noise is as large, what follows T is not."""
    found = [
        judgement(planted(shaken(lambda read: 800 + 3 * read, 0.02, seed), 3, wide=0.08))
        for seed in range(100)
    ]
    assert {each["verdict"] for each in found} <= {worth.LITTLE, worth.UNKNOWN}
    assert sum(each["verdict"] == worth.LITTLE for each in found) >= 95
    assert min(each["r2"] for each in found) < worth.STRAIGHT


@pytest.mark.parametrize(
    ("rest", "verdict"), [(120, worth.HOLDS), (160, worth.LITTLE), (1200, worth.LITTLE)]
)
def test_what_does_not_follow_t_decides_how_much(rest: float, verdict: str) -> None:
    assert judgement(planted(lambda read: rest + 3 * read, memory_us=3))["verdict"] == verdict


def test_slow_experts_follow_t_and_are_no_proof_of_the_papers_reason() -> None:
    found = judgement(planted(lambda read: 10 + 9 * read, memory_us=2.9))
    assert found["verdict"] == worth.SLOW
    assert "3.1 times what reading it takes" in found["why"]


def test_a_rule_that_saves_nothing_beats_a_line_that_promises() -> None:
    """On one of several ranks, turns that read more experts compute more tokens too: the line has
    both in it."""
    record = planted(lambda read: 10 + 3 * read, memory_us=2.9, ranks=8)
    for row in record["rows"]:
        if row["policy"].startswith("oea"):
            row |= {"over_vanilla": 0.98, "over_vanilla_quartiles": [0.97, 0.99]}
    found = judgement(record)
    assert found["verdict"] == worth.GAINS_NOTHING
    assert "by the line, 4 % by what oea:3 saved" in found["why"]


def test_without_vanilla_or_without_a_line_it_says_so() -> None:
    assert (
        "vanilla"
        in judgement(planted(lambda read: read, 1, {"oea:3": 3, "oea:4": 5, "oea:5": 7}))["why"]
    )
    found = judgement(planted(lambda read: read, 1, {"vanilla": 8, "oea:3": 8, "random": 8}))
    assert (found["verdict"], found["follows"]) == (worth.UNKNOWN, None)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_pages_of_records_say_what_their_json_implies(path: Path) -> None:
    record = json.loads(path.read_text())
    page = report.markdown(record)
    said = re.findall(r"^- Batch (\d+): \*\*(.+?)\*\*", page, re.MULTILINE)
    if not report.fitted_as_now(record):
        assert said == []
        return
    expected = [(str(each["batch"]), worth.WORDS[each["verdict"]]) for each in worth.judged(record)]
    assert said == expected
    assert len(said) == len(record["fits"])
