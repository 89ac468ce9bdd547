"""An evaluation's record as a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oea_server.lab.records.tables import NONE, made_by, table

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
                    *("increase, nats", "95 %", "over OEA at this T"),
                    *(f"over OEA at this busiest of {ranks}" for ranks in record["ranks"]),
                    *("KL, nats", "same top token", "mass kept"),
                ],
                [_line(row, record["ranks"]) for row in mine],
            ),
            "",
        ]
    return "\n".join([*lines, *made_by(record), ""])


def _how(record: Record) -> str:
    text = record["text"]
    batches = (
        "from anywhere in the text" if text["order"] == "mixed" else "each batch from one document"
    )
    return (
        f"{text['sequences']} sequences of {text['length']} tokens of {text['name']}, {batches}. A"
        " step is the t-th token of B sequences; every layer routes it by itself, prefill"
        " included. T is the mean number of unique experts read per layer and step. The increase"
        " in cross-entropy is paired with vanilla, intervals are bootstrapped over sequences. Over"
        " OEA: divided by what oea:K0 loses where it reads as many experts, between its two"
        f" nearest k0, with the interval of that ratio. {_routing(record)} Seed {record['seed']}."
    )


def _routing(record: Record) -> str:
    """Which implementation routed which arms; records of before it was kept were all eager's."""
    arms: dict[str, list[str]] = {}
    for row in record["rows"]:
        arms.setdefault(row.get("routing", "eager"), []).append(row["arm"])
    told = [f"{', '.join(dict.fromkeys(names))} by {by}" for by, names in arms.items()]
    return f"Routed: {'; '.join(told)}."


def _line(row: Record, ranks: list[int]) -> list[str]:
    value, low, high = row["increase"]
    return [
        row["arm"],
        f"{row['unique'][0]:.1f}",
        *(f"{row['busiest'][str(each)][0]:.1f}" for each in ranks),
        f"{value:+.4f}",
        f"{low:+.4f} to {high:+.4f}",
        ratio(row["over_oea"]["unique"]),
        *(ratio(row["over_oea"][str(each)]) for each in ranks),
        f"{row['kl'][0]:.4f}",
        f"{row['agreement'][0]:.1%}",
        f"{row['kept'][0]:.3f}",
    ]


def ratio(value: Sequence[float] | None) -> str:
    """A ratio with its interval."""
    return NONE if value is None else "{:.2f} ({:.2f} to {:.2f})".format(*value)
