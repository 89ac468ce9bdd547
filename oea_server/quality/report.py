"""An evaluation's record as a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from oea_server.bench.report import made_by, table

Record = dict[str, Any]


def markdown(record: Record) -> str:
    """The whole page."""
    lines = [f"# Quality against experts read: {record['model']['name']}", "", _how(record), ""]
    for batch in record["batches"]:
        mine = [row for row in record["rows"] if row["batch"] == batch]
        vanilla = next(row for row in mine if row["arm"] == "vanilla")
        lines += [
            f"## B = {batch}",
            "",
            f"Vanilla: {vanilla['loss'][0]:.4f} nats per token, T = {vanilla['unique'][0]:.1f}.",
            "",
            *table(
                [
                    *("arm", "T", *(f"busiest of {ranks} ranks" for ranks in record["ranks"])),
                    *("increase, nats", "95 %", "over OEA at this T", "KL, nats", "same top token", "mass kept"),
                ],
                [_line(row, mine, record["ranks"]) for row in mine],
            ),
            "",
        ]
    return "\n".join([*lines, *made_by(record), ""])


def _how(record: Record) -> str:
    text = record["text"]
    batches = "from anywhere in the text" if text["order"] == "mixed" else "each batch from one document"
    return (
        f"{text['sequences']} sequences of {text['length']} tokens of {text['name']}, {batches}. A step is the t-th "
        "token of B sequences; every layer routes it by itself, prefill included. T is the mean number of unique "
        "experts read per layer and step. The increase in cross-entropy is paired with vanilla, intervals are "
        "bootstrapped over sequences. Over OEA: divided by what oea:K0 loses where it reads as many experts, between "
        f"its two nearest k0. Seed {record['seed']}."
    )


def over_oea(row: Record, rows: Sequence[Record]) -> float | None:
    """An arm's increase over what plain OEA loses at the same T, between its two nearest k0 (losses in logarithms);
    None outside of what was measured, and for OEA itself.

    Args:
        rows: of the same batch size.
    """
    plain = [each for each in rows if each["kind"] == "oea" and "/" not in each["arm"] and each["increase"][0] > 0]
    if row in plain or row["arm"] == "vanilla":
        return None
    for a, b in pairwise(sorted(plain, key=lambda each: float(each["unique"][0]))):
        left, right, at = a["unique"][0], b["unique"][0], row["unique"][0]
        if left <= at <= right and right > left:
            low, high = math.log(a["increase"][0]), math.log(b["increase"][0])
            return float(row["increase"][0] / math.exp(low + (high - low) * (at - left) / (right - left)))
    return None


def _line(row: Record, rows: Sequence[Record], ranks: list[int]) -> list[str]:
    value, low, high = row["increase"]
    ratio = over_oea(row, rows)
    return [
        row["arm"],
        f"{row['unique'][0]:.1f}",
        *(f"{row['busiest'][str(each)][0]:.1f}" for each in ranks),
        f"{value:+.4f}",
        f"{low:+.4f} to {high:+.4f}",
        "–" if ratio is None else f"{ratio:.2f}",
        f"{row['kl'][0]:.4f}",
        f"{row['agreement'][0]:.1%}",
        f"{row['kept'][0]:.3f}",
    ]
