"""Adding up, thresholds, and the statistics of pairs, on cases whose answers are known."""

from __future__ import annotations

import json
import random
import statistics
from typing import Any

import pytest

from loadtest import gates, paired, watch
from loadtest.figures import Figures
from loadtest.histogram import Histogram
from loadtest.stream import Stream


def test_a_histogram_is_right_within_half_a_percent() -> None:
    dice = random.Random(0)
    values = sorted(dice.lognormvariate(-4, 1) for _ in range(5000))
    histogram = Histogram()
    histogram.extend(values)
    for share in (0.01, 0.5, 0.95, 0.99):
        assert histogram.quantile(share) == pytest.approx(
            values[round(share * 5000) - 1], rel=0.006
        )
    assert histogram.mean == pytest.approx(statistics.fmean(values))
    assert Histogram().quantile(0.5) is None
    assert Histogram().mean is None


def stream(ttft: float, gaps: list[float]) -> Stream:
    return Stream(0.0, len(gaps) + 1, first=ttft, end=ttft + sum(gaps), gaps=gaps, done=True)


def rounded(summary: Any) -> Any:
    return json.loads(json.dumps(summary), parse_float=lambda text: round(float(text), 9))


def test_workers_figures_add_up() -> None:
    together, parts = Figures(), [Figures(), Figures()]
    for i in range(10):
        answer = stream(0.1 * (i + 1), [0.01] * i)
        for each in (together, parts[i % 2]):
            each.answered(answer, 100.0 + i)
    parts[0].failed("why")
    together.failed("why")
    master = Figures()
    for part in parts:
        master.merge(Figures.unpacked(json.loads(json.dumps(part.packed()))))
    assert rounded(master.summary()) == rounded(together.summary())
    assert master.failure_ratio == pytest.approx(1 / 11)
    assert master.seconds == pytest.approx(9.1)


def given(**limits: float) -> dict[str, float | None]:
    return {
        **{option: None for option, _, _ in gates.names()},
        "min_tokens_per_s": None,
        "max_failures": 0.0,
        **limits,
    }


def test_thresholds() -> None:
    figures = Figures()
    figures.answered(stream(0.2, [0.05] * 9), 10.0)
    assert (
        gates.misses(
            figures, given(ttft_p95=0.21, itl_mean=0.051, e2e_p99=0.66, min_tokens_per_s=10)
        )
        == []
    )
    assert gates.misses(figures, given(ttft_p95=0.19)) == [
        "ttft p95: 0.2005 s, 0.19 s is the limit"
    ]
    assert gates.misses(figures, given(late_p50=1)) == ["late p50: no values, 1 s is the limit"]
    assert gates.misses(figures, given(min_tokens_per_s=16)) == [
        "tokens per second: 15.4, 16 is the least"
    ]
    figures.failed("why")
    assert gates.misses(figures, given()) == [
        "failed: 50.00% of the requests, at most 0.00% are allowed"
    ]
    assert gates.misses(figures, given(max_failures=0.5)) == []


def test_a_run_without_answers_has_not_passed() -> None:
    assert gates.misses(Figures(), given()) == ["no request was answered"]


def test_a_constant_difference_has_no_interval() -> None:
    found = paired.difference([1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0])
    assert (found.change, found.low, found.high) == (1.0, 1.0, 1.0)
    assert found.ratio == pytest.approx(1.4)
    assert found.p == 2 / 16  # all signs alike, of 16 patterns


def test_the_interval_is_that_of_a_normal_mean() -> None:
    dice = random.Random(1)
    changes = [dice.gauss(0.5, 1.0) for _ in range(400)]
    found = paired.difference([1.0] * 400, [1.0 + change for change in changes])
    half = 1.96 * statistics.stdev(changes) / 20
    assert found.change == pytest.approx(statistics.fmean(changes))
    assert (found.low, found.high) == pytest.approx(
        (found.change - half, found.change + half), abs=0.02
    )


def test_drift_cancels_within_pairs() -> None:
    drift = [float(i) for i in range(12)]
    found = paired.difference(
        drift, [each + 0.1 + 0.01 * (-1) ** i for i, each in enumerate(drift)]
    )
    assert found.low > 0
    assert found.p < 0.001


def test_a_null_test_is_significant_one_time_in_twenty() -> None:
    """Of many null experiments with twelve measures each, about 5 % find anything."""
    dice, found = random.Random(2), 0
    for _ in range(200):
        ps = [paired.sign_flips([dice.gauss(0, 1) for _ in range(10)]) for _ in range(12)]
        found += any(paired.holm(ps))
    assert found / 200 <= 0.10


def test_holm() -> None:
    assert paired.holm([0.04, 0.001, 0.03, 0.012]) == [False, True, False, True]
    assert paired.holm([0.06]) == [False]
    assert paired.holm([]) == []


def test_zeros_have_no_ratio_and_no_significance() -> None:
    found = paired.difference([0.0, 0.0], [0.0, 0.0])
    assert (found.ratio, found.p) == (None, 1.0)
    with pytest.raises(ValueError, match="not pairs"):
        paired.difference([1.0], [])


def test_slope_of_a_line_and_of_noise() -> None:
    counts = [10 * i for i in range(100)]
    exact = watch.slope(counts, [50 + 0.002 * count for count in counts])
    assert (exact.per_1000, exact.error) == pytest.approx((2.0, 0.0), abs=1e-6)
    dice = random.Random(3)
    noisy = watch.slope(counts, [50 + dice.gauss(0, 1) for _ in counts])
    assert abs(noisy.per_1000) < 3 * noisy.error


def held(handles: int, load: int = 0) -> watch.Held:
    return watch.Held({"http": handles}, {"http": 5}, {"num_running_reqs": load}, {"http": 100.0})


def test_leaks_are_named() -> None:
    assert watch.leaks(held(20), held(22)) == []
    assert watch.leaks(held(20), held(23)) == ["http: handles 20 -> 23"]
    assert watch.leaks(held(20), held(20, load=1)) == ["num_running_reqs 1"]
