"""What a judged record says in sentences: the verdict, what was bought for what, and what was not
tested."""

from __future__ import annotations

from typing import Any

from oea_server.lab.records.record import Record

REFUSED = "is not judged: nothing can be concluded from this run"
HEADLINES = {
    "no worse": "is shown to be no worse than vanilla at these tasks",
    "worse": "is shown to be worse than vanilla at these tasks",
    "cannot tell": "is not judged: these samples cannot tell",
}
ARMS = ("candidate", "vanilla")
Change = tuple[str, str, str]
"""What is less, more, or the same."""
READ = (
    "fewer experts read in a decode step",
    "more experts read in a decode step",
    "as many experts read as vanilla",
)
WAIT = ("less time per token", "more time per token", "as much time per token as vanilla")
WAIT_FOR_ALL = ("less time", "more time", "as long as with vanilla")
FLOW = ("fewer tokens per second", "more tokens per second", "as many tokens per second as vanilla")
LENGTH = (
    "fewer tokens in an answer",
    "more tokens in an answer",
    "as many tokens in an answer as vanilla",
)
LEAST = 0.005
"""A change below half a percent is called none."""


def headline(name: str, verdict: dict[str, Any]) -> str:
    """The verdict on a candidate in a sentence."""
    return f"{name} {REFUSED if verdict['refusals'] else HEADLINES[verdict['verdict']]}."


def accuracy(verdict: dict[str, Any]) -> str:
    """How often both are right."""
    seen = verdict["difference"]
    if seen is None:
        return "No answer could be checked."
    mine, base = (
        percent(right and right["value"]) for right in (verdict[arm]["right"] for arm in ARMS)
    )
    return (
        f"It is right in {mine} of its answers, vanilla in {base}. Of {seen['pairs']:,} pairs"
        f" {seen['lost']:,} are right only with vanilla, {seen['won']:,} only with the candidate."
    )


def bought(verdict: dict[str, Any]) -> str:
    """What the candidate saves."""
    costs = verdict["cost"]
    said = [
        change(costs["unique"]["ratio"], READ),
        change(costs["tpot"]["ratio"], WAIT),
        change(costs["tokens_per_s"]["ratio"], FLOW),
    ]
    return (
        "; ".join(each for each in said if each) + "."
        if any(said)
        else "Nothing was measured of it."
    )


def paid(verdict: dict[str, Any]) -> str:
    """The candidate's cost but for right answers: longer answers, which eat the gain, and broken
    ones."""
    mine, base, longer = verdict["candidate"], verdict["vanilla"], verdict["longer"]
    said = []
    if longer is not None:
        said.append(change(longer, LENGTH))
        tpot = verdict["cost"]["tpot"]["ratio"]
        if tpot is not None and tpot["told"]:
            said.append(
                "so decoding an answer takes"
                f" {change(_flat(tpot['value'] * longer['value']), WAIT_FOR_ALL)}"
            )
    counted = [
        ", ".join(f"{arm[name]:,}" for name in ("empty", "cut", "broken")) for arm in (mine, base)
    ]
    said.append(f"empty, cut and broken answers: {counted[0]}, vanilla {counted[1]}")
    return "; ".join(said) + "."


def change(ratio: dict[str, Any] | None, of: Change) -> str:
    """A ratio as so many percent less or more, with its range where it has one; empty where there
    is none.

    Args:
        ratio: "value", "low", "high"; "told" where that is not the ends of an interval but of what
            rounds gave.
    """
    if ratio is None:
        return ""
    value, low, high = ratio["value"], ratio["low"], ratio["high"]
    less, more, same = of
    said = same if abs(value - 1) < LEAST else f"{abs(value - 1):.0%} {less if value < 1 else more}"
    sure = ratio.get("told", low == high or not low <= 1 <= high)
    range_ = [] if low == high else [f"{low - 1:+.0%} to {high - 1:+.0%}"]
    more_ = [*range_, *([] if sure or said == same else ["not told from none"])]
    return f"{said} ({', '.join(more_)})" if more_ else said


def not_tested(record: Record) -> list[str]:
    """What the record cannot show, a line each."""
    plan = record["plan"]
    batches = [block["batch"] for block in record["blocks"] if block["batch"] is not None]
    cut = sum(bool(answer["cut"]) for answer in record["answers"])
    heat = f"temperature {plan['temperature']:g}" if plan["temperature"] else "greedy decoding"
    measured = (
        f"{min(batches):.1f} to {max(batches):.1f} requests"
        if batches
        else "an unknown number of requests"
    )
    risk = (1 - plan["confidence"]) / 2
    several = len(record["verdicts"])
    best = [
        f"The best of the {several} candidates as such: each was judged by itself, and the best of"
        " several looks better than it is. Qualify the one that you pick again, alone."
    ]
    return [
        *(best if several > 1 else []),
        (
            f"Losses within the margin: no worse means at most {100 * plan['margin']:g} points"
            f" worse. A candidate that loses just that passes in {risk:.1%} of all runs, one that"
            " loses more less often."
        ),
        (
            f"Other tasks than the {plan['tasks']['number']:,} of {plan['tasks']['file']}, and what"
            " they do not ask for: an average over them may hide a kind of task that suffers."
        ),
        (
            f"Answers beyond {plan['max_tokens']:,} tokens; {cut:,} of {len(record['answers']):,}"
            " were cut at their limit."
        ),
        (
            f"Other loads: a decode step had {measured}. What is shared, and so what a candidate"
            " does, changes with that."
        ),
        f"Other sampling than {heat}.",
        (
            f"Other models, formats of weights and machines than {record['model']['name']} on"
            f" {record['machine']['name']}. Speed is of this machine and load alone."
        ),
        "Prefill, which is always vanilla.",
    ]


def percent(share: float | None) -> str:
    """``69.5 %``."""
    return "–" if share is None else f"{share:.1%}"


def points(share: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * share:+.1f}"


def _flat(value: float) -> dict[str, float]:
    return {"value": value, "low": value, "high": value}
