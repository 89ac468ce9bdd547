"""The paper's findings (arXiv 2511.02237, section on cross-entropy), each judged by our own
records.

    python -m oea_server.lab.quality.findings GRID.json RULES.json DOCUMENT.json

prints the table of docs/quality-results.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from oea_server.lab.quality.report import ratio as shown_ratio
from oea_server.lab.records.tables import table

Record = dict[str, Any]
Row = dict[str, Any]

YES, NO, OPEN = "yes", "no", "not told apart"


class Finding(NamedTuple):
    """One finding of the paper, as it came out here: reproduced, refuted, or neither beyond the
    intervals."""

    claim: str
    verdict: str
    found: str


def findings(grid: Record, rules: Record, document: Record) -> list[Finding]:
    """Judge.

    Args:
        grid: an evaluation with pruned:K0 and oea:K0 at several batch sizes.
        rules: one with knobs of OEA at one batch size.
        document: one whose batches are of one document each, with arms and a batch size that
            `rules` has too.
    """
    return [
        dominates(grid),
        larger_loses_less(grid),
        _ratios(
            "p < 1 brings nothing",
            rules,
            "/p=",
            lambda each: NO if each[2] < 1 else YES if each[0] >= 1 else OPEN,
        ),
        _ratios("looking beyond a token's own top k helps", rules, "/max_rank=8", _worse),
        _ratios("k_max above k degrades", rules, "/k_max=", _worse),
        homogeneous(rules, document),
    ]


def dominates(grid: Record) -> Finding:
    """OEA against pruning to the same k0, at every batch size above 1."""
    rows = _rows(grid)
    pairs = [
        (rows[batch, arm], rows[batch, arm.replace("oea", "pruned")])
        for batch, arm in rows
        if batch > 1 and arm.startswith("oea:") and (batch, arm.replace("oea", "pruned")) in rows
    ]
    below = sum(ours["increase"][2] < theirs["increase"][1] for ours, theirs in pairs)
    above = sum(ours["increase"][1] > theirs["increase"][2] for ours, theirs in pairs)
    verdict = NO if above else YES if 2 * below > len(pairs) else OPEN
    batches = sorted({ours["batch"] for ours, _ in pairs})
    text = f"below it at {below} of {len(pairs)} (B, k0), intervals apart; above it at {above}"
    for batch in batches:
        if (batch, "pruned:3") in rows:
            ours, theirs = (rows[batch, f"{kind}:3"]["increase"][0] for kind in ("oea", "pruned"))
            text += (
                "; k0 = 3: " if batch == batches[0] else ", "
            ) + f"{ours:+.4f} against {theirs:+.4f} (B = {batch})"
    return Finding("OEA loses less than pruning to the same k0, at every B", verdict, text)


def larger_loses_less(grid: Record) -> Finding:
    """Whether a k0 loses less at a larger batch."""
    rows = _rows(grid)
    batches = sorted(batch for batch in grid["batches"] if batch > 1)
    arms = sorted({arm for _, arm in rows if arm.startswith("oea:")})
    pairs = [(rows[a, arm], rows[b, arm]) for arm in arms for a, b in combinations(batches, 2)]
    less = sum(b["increase"][2] < a["increase"][1] for a, b in pairs)
    more = sum(b["increase"][1] > a["increase"][2] for a, b in pairs)
    verdict = NO if more else YES if 2 * less > len(pairs) else OPEN
    text = f"less at {less} of {len(pairs)} pairs of B, intervals apart; more at {more}"
    if "oea:3" in arms:
        text += "; k0 = 3: " + ", ".join(
            f"{rows[b, 'oea:3']['increase'][0]:+.4f} (B = {b})" for b in batches
        )
    return Finding("a larger B loses less", verdict, text)


def homogeneous(mixed: Record, document: Record) -> Finding:
    """Batches of one document against mixed ones. The paper claims nothing about it."""
    arm, batch = "oea:3", max(row["batch"] for row in document["rows"])
    (there, ours), (here, theirs) = (
        (_rows(record)[batch, "vanilla"], _rows(record)[batch, arm]) for record in (mixed, document)
    )
    reads, loses = (
        abs(here["unique"][0] / there["unique"][0] - 1) > 0.02,
        _apart(ours["increase"], theirs["increase"]),
    )
    text = f"vanilla reads {here['unique'][0]:.1f} experts instead of {there['unique'][0]:.1f}, "
    text += f"{arm} {theirs['unique'][0]:.1f} instead of {ours['unique'][0]:.1f}; "
    text += "{:+.4f} ({:+.4f} to {:+.4f}) nats ".format(*theirs["increase"])
    text += "instead of {:+.4f} ({:+.4f} to {:+.4f})".format(*ours["increase"])
    return Finding(
        f"a batch of one document is like a mixed one (B = {batch})",
        NO if reads or loses else YES,
        text,
    )


def _apart(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[2] < b[1] or b[2] < a[1]


def _ratios(
    claim: str, rules: Record, knob: str, judge: Callable[[Sequence[float]], str]
) -> Finding:
    """By what arms with a knob lose over plain OEA at the same T."""
    found = {
        row["arm"]: row["over_oea"]["unique"]
        for row in rules["rows"]
        if knob in row["arm"] and row["kind"] == "oea"
    }
    told = {arm: ratio for arm, ratio in found.items() if ratio is not None}
    verdicts = {judge(ratio) for ratio in told.values()}
    verdict = verdicts.pop() if len(verdicts) == 1 else NO if NO in verdicts else OPEN
    text = ", ".join(f"{arm} {shown_ratio(ratio)}" for arm, ratio in told.items())
    return Finding(claim, verdict, f"of what OEA loses at that T: {text}")


def _worse(ratio: Sequence[float]) -> str:
    return YES if ratio[1] > 1 else NO if ratio[2] < 1 else OPEN


def _rows(record: Record) -> dict[tuple[int, str], Row]:
    return {(row["batch"], row["arm"]): row for row in record["rows"]}


def shown(found: Sequence[Finding]) -> str:
    """The findings as a table."""
    return "\n".join(table(["the paper", "here", "measured"], found, names=3))


if __name__ == "__main__":
    print(shown(findings(*(json.loads(Path(path).read_text()) for path in sys.argv[1:4]))))
