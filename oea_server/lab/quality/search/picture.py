"""A search's record as a picture, by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from oea_server.lab.records.pictures import COLOURS, save

Record = dict[str, Any]


def draw(record: Record, path: Path) -> None:
    """Increase in cross-entropy against the cost, one panel a batch size: all rules, and the front;
    PNG."""
    batches = record["batches"]
    columns = min(len(batches), 3)
    figure = Figure(
        figsize=(4.6 * columns, 4.0 * -(-len(batches) // columns)), layout="constrained"
    )
    panels = list(figure.subplots(-(-len(batches) // columns), columns, squeeze=False).flat)
    cost = {
        "T": "T, unique experts",
        "busiest": "experts of the busiest rank",
        "latency": "a layer, µs",
    }
    for axes, batch in zip(panels, batches, strict=False):
        mine = [row for row in record["rows"] if row["batch"] == batch]
        early = [row for row in mine if not row["front"]]
        axes.scatter(
            [r["cost"] for r in early],
            [r["increase"][0] for r in early],
            s=8,
            color=COLOURS[6],
            label="others, on less text",
        )
        front = sorted((row for row in mine if row["front"]), key=lambda row: row["cost"])
        values = [row["increase"] for row in front]
        bars = [
            [value - low for value, low, _ in values],
            [high - value for value, _, high in values],
        ]
        at = [row["cost"] for row in front]
        axes.errorbar(
            at,
            [each[0] for each in values],
            yerr=bars,
            color=COLOURS[0],
            marker="o",
            ms=4,
            label="front",
        )
        axes.axhline(record["budget"]["nats"], color=COLOURS[1], linestyle="--", label="budget")
        axes.set(
            title=f"B = {batch}",
            xlabel=cost[record["against"]],
            ylabel="increase in cross-entropy, nats",
        )
        axes.set_yscale("symlog", linthresh=0.01)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    for axes in panels[len(batches) :]:
        axes.set_visible(False)
    figure.suptitle(record["model"]["name"])
    save(figure, path, record)
