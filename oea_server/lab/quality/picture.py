"""An evaluation's record as a picture, by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from oea_server.lab.records.pictures import COLOURS, save

Record = dict[str, Any]


def draw(record: Record, path: Path) -> None:
    """Increase in cross-entropy against T, one panel a batch size, one line a kind of arm; PNG."""
    batches = [batch for batch in record["batches"] if batch > 1] or record["batches"]
    columns = min(len(batches), 3)
    figure = Figure(
        figsize=(4.6 * columns, 4.0 * -(-len(batches) // columns)), layout="constrained"
    )
    panels = list(figure.subplots(-(-len(batches) // columns), columns, squeeze=False).flat)
    kinds = list(dict.fromkeys(row["kind"] for row in record["rows"]))
    for axes, batch in zip(panels, batches, strict=False):
        for colour, kind in zip(COLOURS, kinds, strict=False):
            mine = [row for row in record["rows"] if (row["batch"], row["kind"]) == (batch, kind)]
            plain = sorted(
                (row for row in mine if "/" not in row["arm"]), key=lambda row: row["unique"][0]
            )
            axes.plot(
                [r["unique"][0] for r in plain],
                [r["increase"][0] for r in plain],
                color=colour,
                label=kind,
            )
            for row in mine:
                value, low, high = row["increase"]
                marker = "x" if "/" in row["arm"] else "o"
                bars = [[value - low], [high - value]]
                axes.errorbar(
                    row["unique"][0], value, yerr=bars, color=colour, marker=marker, elinewidth=1
                )
        axes.set(
            title=f"B = {batch}",
            xlabel="T, unique experts",
            ylabel="increase in cross-entropy, nats",
        )
        axes.set_yscale("symlog", linthresh=0.01)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    for axes in panels[len(batches) :]:
        axes.set_visible(False)
    figure.suptitle(record["model"]["name"])
    save(figure, path, record)
