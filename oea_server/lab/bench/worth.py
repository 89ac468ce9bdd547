"""Is T worth saving here? What a record of `bench moe` says to that, batch size by batch size, in
words and numbers.

Fewer experts save time only where a layer's time goes with the experts that it reads. It need not:
on one public trial of a router like ours the experts ran at 7 % of the memory's bandwidth, and with
half of them nothing was faster."""

from __future__ import annotations

from math import sqrt
from typing import Any, NamedTuple

from oea_server.lab.records.record import Record
from oea_server.lab.records.tables import micro, percent, ratio

LEVEL = 0.95
MUCH = 0.5
"""Of a layer's time, what goes with T. From here on, half the experts take a quarter off the layer
and more. The paper's two layers have 0.81 and 0.56 (Qwen3-30B on one H100; Qwen3-235B on eight, its
all-reduce included)."""
NOTHING = 0.1
"""Below, half the experts take less than 5 % off a layer, and less off a step, which is not all
layers."""
MEMORY = 0.5
"""Share of the bandwidth measured in the same run. The paper's layers read at 0.78 and 0.64 of the
H100's data sheet. Below half, something else than memory takes most of the time, and another kernel
may take it away with what T saves."""
STRAIGHT = 0.9
"""R² of the policies' medians below which the time depends on more than T, or is noise (the paper's
is above 0.99). No line holds then; where little follows T, the same noise makes a smaller R², and
the interval decides alone."""
FEWER = 0.9
"""Share of vanilla's experts: a rule that reads more of them has not tried."""
MEDIANS_ERROR = 0.93
"""A median's standard error over the quartiles' distance and the root of the number: 1.253 / 1.349
for a normal."""

HOLDS, SLOW, LITTLE, GAINS_NOTHING, UNKNOWN = (
    "holds",
    "slow experts",
    "little",
    "nothing",
    "cannot tell",
)
"""The verdicts."""


class Follows(NamedTuple):
    """The share of vanilla's layer time that goes with T, and its 95 % interval.

    Above 1 where the line's intercept is below zero.
    """

    value: float
    low: float
    high: float


def judged(record: Record) -> list[dict[str, Any]]:
    """A verdict for each batch size, as JSON holds it; from the record's rows, fits and bandwidth,
    and nothing else."""
    return [_judged(record, fit) for fit in record["fits"]]


def _judged(record: Record, fit: dict[str, Any]) -> dict[str, Any]:
    rows = [row for row in record["rows"] if row["batch"] == fit["batch"]]
    vanilla = next((row for row in rows if row["policy"] == "vanilla"), None)
    facts: dict[str, Any] = {
        "batch": fit["batch"],
        "slope_us": fit["slope_us"],
        "r2": fit["r2"],
        "of_bandwidth": None,
        "expert_over_memory": None,
        "follows": None,
        "fewest": None,
    }
    if vanilla is None:
        return facts | _said(UNKNOWN, "vanilla was not among the policies")
    facts["of_bandwidth"] = vanilla["floor_us"] / max(
        vanilla["latency_us"] - vanilla["routing_us"], 1e-9
    )
    if fit["slope_us"] is None:
        return facts | _said(
            UNKNOWN, "fewer than three policies were timed, or all of them read as many experts"
        )
    follows = _follows(fit, vanilla["unique_experts"], _points(record, rows))
    facts["follows"] = list(follows)
    facts["expert_over_memory"] = fit["slope_us"] / fit["memory_us_per_expert"]
    facts["fewest"] = _fewest(rows, vanilla["unique_experts"], record["repeats"])
    scattered = record["preset"]["ranks"] == 1 and fit["r2"] < STRAIGHT
    return facts | _said(*_verdict(facts, follows, scattered))


def _points(record: Record, rows: list[dict[str, Any]]) -> int:
    """What the line was fitted through: policies' medians, or on one of several ranks their single
    turns."""
    policies = sum(not row["policy"].startswith("pruned") for row in rows)
    return policies * (record["repeats"] if record["preset"]["ranks"] > 1 else 1)


def _follows(fit: dict[str, Any], experts: float, points: int) -> Follows:
    """slope x T, over what the line says at T; the interval by the slope's standard error, which R²
    implies.

    A line that explains nothing leaves everything open.
    """
    from scipy.special import stdtrit

    value = fit["slope_us"] * experts / max(fit["intercept_us"] + fit["slope_us"] * experts, 1e-9)
    r2, freedom = fit["r2"], points - 2
    error = 1.0 if r2 < 1e-12 else abs(value) * sqrt(max(1 - r2, 0.0) / r2 / freedom)
    reach = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return Follows(value, value - reach, value + reach)


def _fewest(rows: list[dict[str, Any]], experts: float, repeats: int) -> dict[str, Any] | None:
    """The rule for serving that reads fewest experts, as it was measured beside vanilla, routing
    and all.

    `follows`: the share of the time that it saved over the share of the experts that it saved.
    `follows_high`: the end of its 95 % interval, by the quartiles of the turns as if they were
    normal."""
    ours = [
        row
        for row in rows
        if row["policy"].partition(":")[0] not in ("vanilla", "random", "pruned")
    ]
    row = min(ours, key=lambda each: each["unique_experts"], default=None)
    if row is None or row["unique_experts"] > FEWER * experts:
        return None
    fewer = 1 - row["unique_experts"] / experts
    lower, upper = row["over_vanilla_quartiles"]
    error = MEDIANS_ERROR * (upper - lower) / sqrt(repeats)
    kept = {
        name: row[name] for name in ("policy", "unique_experts", "over_vanilla", "routing_share")
    }
    saved = 1 - row["over_vanilla"]
    return kept | {"follows": saved / fewer, "follows_high": (saved + 1.96 * error) / fewer}


def _verdict(facts: dict[str, Any], follows: Follows, scattered: bool) -> tuple[str, str]:
    """The verdict, and in words what it rests on: of the line and of what a rule saved, the one
    that promises less."""
    reads = f"the experts reach {percent(facts['of_bandwidth'])} of the bandwidth"
    share = (
        f"{percent(follows.value)} of the layer's time follow T ({percent(follows.low)} to"
        f" {percent(follows.high)})"
    )
    if follows.high < NOTHING:
        return GAINS_NOTHING, f"{reads}, and {share}: fewer experts save nothing that could be seen"
    if follows.low <= 0 or (scattered and follows.high >= MUCH):
        return (
            UNKNOWN,
            f"{share}, R² is {facts['r2']:.2f}: noise, or more than T decides. Take more --repeats",
        )
    least = follows.value
    if facts["fewest"] and facts["fewest"]["follows"] < least:
        least = facts["fewest"]["follows"]
        share += f" by the line, {percent(least)} by what {facts['fewest']['policy']} saved"
    saved = f"half the experts take {percent(least / 2)} off the layer"
    if facts["fewest"] and facts["fewest"]["follows_high"] < NOTHING:
        return GAINS_NOTHING, f"{reads}, and {share}: fewer experts save nothing that could be seen"
    if least < MUCH:
        return LITTLE, f"{reads}, and {share}: {saved}"
    if facts["of_bandwidth"] < MEMORY:
        return (
            SLOW,
            (
                f"{share}: {saved}. But {reads} only, and one more costs"
                f" {facts['expert_over_memory']:.1f} times what reading it takes: faster experts"
                " would gain more, and leave less to save"
            ),
        )
    return HOLDS, f"{reads}, and {share}: {saved}"


def _said(verdict: str, why: str) -> dict[str, str]:
    return {"verdict": verdict, "why": why}


WORDS = {
    HOLDS: "yes, the paper's line holds",
    SLOW: "yes, but not because of memory",
    LITTLE: "little",
    GAINS_NOTHING: "no, nothing is gained here",
    UNKNOWN: "cannot tell",
}


def lines(record: Record) -> list[str]:
    """The section of a record's page."""
    return [
        "## Is T worth saving here?",
        "",
        *(
            f"- Batch {each['batch']}: **{WORDS[each['verdict']]}**; {each['why']}.{_seen(each)}"
            for each in judged(record)
        ),
        "",
        (
            "The experts' share of the bandwidth: the bytes of vanilla's experts over the layer's"
            " time without routing, beside what the reads between the turns reached. What follows"
            " T by the line: slope times T over the line, at vanilla's T, with the slope's"
            f" {percent(LEVEL)} interval; above 100 % where the intercept is below zero. By what a"
            " rule saved: its share of the time saved over its share of the experts saved. The"
            f" smaller of the two counts: yes from {percent(MUCH)} on, and because of memory from"
            f" {percent(MEMORY)} of the bandwidth on; no below {percent(NOTHING)}."
        ),
    ]


def _seen(judgement: dict[str, Any]) -> str:
    """The numbers behind the verdict: the line, and the rule that reads fewest."""
    if judgement["follows"] is None:
        return ""
    line = f" One expert more takes {micro(judgement['slope_us'])} µs, R² {judgement['r2']:.4f}."
    fewest = judgement["fewest"]
    if fewest is None:
        return line
    took = (
        f"took {ratio(fewest['over_vanilla'])} of vanilla's time, routing"
        f" {percent(fewest['routing_share'])} of it"
    )
    return f"{line} {fewest['policy']} read {fewest['unique_experts']:.1f} experts and {took}."
