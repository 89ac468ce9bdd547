"""A search's record as a page."""

from __future__ import annotations

from typing import Any

from oea_server.lab.records.tables import made_by, table

Record = dict[str, Any]


def markdown(record: Record) -> str:
    """The whole page."""
    lines = [f"# Rules found for {record['model']['name']}", "", _how(record), ""]
    lines += _rungs(record)
    for batch in record["batches"]:
        lines += _front(record, batch)
    return "\n".join([*lines, *made_by(record, record["seed"]), ""])


def _how(record: Record) -> str:
    text, spent = record["text"], record["race"].values()
    used, whole = (sum(each[name] for each in spent) for name in ("evaluations", "whole"))
    return (
        f"{text['sequences']} sequences of {text['length']} tokens of {text['name']}, measured as"
        f" `oea-server eval` does, routed by {record['routing']}. {used} evaluations instead of the"
        f" whole grid's {whole} ({used / whole:.0%}). At most {record['budget']['nats']:.4f} nats"
        f" per token were allowed ({record['budget']['asked']}); what counts is the upper end of"
        " the 95 % interval of the increase over vanilla, paired by sequence."
    )


def _rungs(record: Record) -> list[str]:
    if not record["rungs"]:
        return ["No rule keeps within the budget: serve vanilla, or allow more.", ""]
    rows = []
    for number, rung in enumerate(record["rungs"]):
        knobs = " ".join(
            f"{name}={value}" for name, value in rung["knobs"].items() if not _off(name, value)
        )
        experts = rung["experts"]
        shares = (
            ", ".join(f"{share:.2f}" for share in experts.values())
            if isinstance(experts, dict)
            else "1"
        )
        rows.append(
            [
                str(number),
                rung["name"],
                knobs,
                f"{rung['nats']:.4f}",
                f"{rung['mass_kept']:.3f}",
                shares,
            ]
        )
    sizes = ", ".join(str(batch) for batch in sorted({1, *record["batches"]}))
    what = {"T": "T", "busiest": f"busiest of {record['ranks']} ranks", "latency": "experts"}[
        record["against"]
    ]
    header = [
        "",
        "rung",
        "knobs",
        "loss at most, nats",
        "least mass kept",
        f"{what} of vanilla's at B = {sizes}",
    ]
    serve = [
        f"    {number}  {_flags(rung['knobs'])}" for number, rung in enumerate(record["rungs"])
    ]
    return [
        "## Rungs",
        "",
        *table(header, rows, 3),
        "",
        "One of them alone, as flags of `serve`:",
        "",
        *serve,
        "",
    ]


def _flags(knobs: dict[str, Any]) -> str:
    return " ".join(
        f"--oea-{name.replace('_', '-')} {value}"
        for name, value in knobs.items()
        if value is not None
    )


def _off(name: str, value: Any) -> bool:
    return (name, value) in {
        ("share", "0.0"),
        ("mix", "1.0"),
        ("pool", "union"),
        ("rank_budget", None),
    }


def _front(record: Record, batch: int) -> list[str]:
    mine = [row for row in record["rows"] if row["batch"] == batch]
    spent = record["race"][str(batch)]
    rounds = ", ".join(f"{rules} on {pieces}" for pieces, rules in spent["rounds"])
    cost = {"T": "T", "busiest": "busiest rank", "latency": "layer, µs"}[record["against"]]
    names = [*(["T"] if record["against"] != "T" else [])]
    rows = [
        [
            row["rule"],
            f"{row['cost']:.1f}",
            *(f"{row['unique']:.1f}" for _ in names),
            f"{row['increase'][0]:+.4f}",
            f"{row['increase'][1]:+.4f} to {row['increase'][2]:+.4f}",
            f"{row['kept']:.3f}",
        ]
        for row in sorted(mine, key=lambda row: -row["cost"])
        if row["front"]
    ]
    return [
        f"## B = {batch}",
        "",
        (
            f"Rules on pieces of the text: {rounds}; {spent['evaluations']} evaluations of"
            f" {spent['whole']}. The front:"
        ),
        "",
        *table(["rule", cost, *names, "increase, nats", "95 %", "mass kept"], rows),
        "",
    ]
