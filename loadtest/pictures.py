"""The pictures of an A/B record, as PNG."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

Record = dict[str, Any]

COLOURS = {"a": "#4477aa", "b": "#ee6677"}
DRAWN = ("ttft_p50", "tpot_p50", "tokens_per_s", "unique_experts")
DOTS_PER_INCH = 110


def forest(record: Record) -> bytes:
    """B over A, one line a measure, with the interval of the bootstrap; filled where it is
    significant."""
    rows = [row for row in record["rows"] if row["ratio"] is not None][::-1]
    figure = Figure(figsize=(8, 0.4 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    for i, row in enumerate(rows):
        ends = [[row["ratio"] - row["ratio_low"]], [row["ratio_high"] - row["ratio"]]]
        fill = COLOURS["b"] if row["significant"] else "white"
        axes.errorbar(
            row["ratio"],
            i,
            xerr=ends,
            color=COLOURS["b"],
            marker="o",
            markerfacecolor=fill,
            capsize=3,
        )
    axes.axvline(1.0, color="#888888", linewidth=1)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_xlabel("B / A, with 95 % interval; filled: significant")
    axes.grid(alpha=0.3, axis="x")
    return _png(figure)


def blocks_over_time(record: Record) -> bytes:
    """Some measures block by block, so that drift can be seen."""
    figure = Figure(figsize=(10, 2.0 * len(DRAWN)), layout="constrained")
    panels = figure.subplots(len(DRAWN), 1, sharex=True)
    for axes, name in zip(panels, DRAWN, strict=True):
        for arm, colour in COLOURS.items():
            mine = [
                (i, block[name]) for i, block in enumerate(record["blocks"]) if block["arm"] == arm
            ]
            axes.plot(
                [i for i, _ in mine],
                [value for _, value in mine],
                "o-",
                color=colour,
                label=arm.upper(),
            )
        axes.set_ylabel(name)
        axes.set_ylim(0, None)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    panels[-1].set_xlabel("block")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DOTS_PER_INCH)
    return file.getvalue()
