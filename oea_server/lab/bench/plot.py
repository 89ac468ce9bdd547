"""The picture of a record, by matplotlib."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from oea_server.lab.bench import tiers_page
from oea_server.lab.records.pictures import COLOURS, save
from oea_server.lab.records.record import Record
from oea_server.lab.records.tables import micro

MARKERS = {"vanilla": "s", "random": "^", "pruned": "x", "oea": "o", "fill": "D", "budget": "P"}


def draw(record: Record, path: Path) -> None:
    """Write the picture as PNG."""
    figure = {"moe": _moe, "router": _router, "serve": _serve, "tiers": tiers_page.draw}[
        record["benchmark"]
    ](record)
    save(figure, path, record)


def _moe(record: Record) -> Figure:
    """Layer latency against experts read; one colour a batch size, one marker a kind of policy."""
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    rows, preset = record["rows"], record["preset"]
    fits = {each["batch"]: each for each in record["fits"]}
    most = max(row["unique_experts"] for row in rows)
    seen: set[str] = set()
    for colour, batch in zip(_colours(len(fits)), fits, strict=True):
        for row in rows:
            if row["batch"] != batch:
                continue
            kind = row["policy"].partition(":")[0]
            seen.add(kind)
            _point(axes, row["unique_experts"], row, colour, MARKERS[kind])
        line = fits[batch]
        mine = [row["unique_experts"] for row in rows if row["batch"] == batch]
        label = f"batch {batch}"
        if line["slope_us"] is None:
            axes.plot([], [], color=colour, label=label)
            continue
        ends = [min(mine), max(mine)]
        label += (
            f": {micro(line['intercept_us'])} + {micro(line['slope_us'])} T µs, R² {line['r2']:.3f}"
        )
        axes.plot(
            ends,
            [line["intercept_us"] + line["slope_us"] * x for x in ends],
            color=colour,
            label=label,
        )
    floor = record["memory_us_per_expert"]
    axes.plot(
        [0, most],
        [0, most * floor],
        color="black",
        linestyle="--",
        label=f"memory floor: {micro(floor)} T µs ({record['bandwidth']['gb_per_s']:.0f} GB/s)",
    )
    for kind in (kind for kind in MARKERS if kind in seen):
        axes.plot([], [], color="grey", linestyle="none", marker=MARKERS[kind], label=kind)
    axes.set(
        xlabel="T, unique experts read per step" + (" by this rank" if preset["ranks"] > 1 else ""),
        ylabel="one layer with routing, µs (median, quartiles)",
        title=f"{preset['name']}, {record['logits']['kind']} logits, {record['machine']['name']}",
        xlim=(0, None),
        ylim=(0, None),
    )
    _finish(axes)
    return figure


def _router(record: Record) -> Figure:
    """Routing time against batch size; one panel a number of experts, one line a router and
    policy."""
    shapes = list(dict.fromkeys(row["experts"] for row in record["rows"]))
    figure = Figure(figsize=(4.2 * len(shapes) + 1, 4.5), layout="constrained")
    panels = figure.subplots(1, len(shapes), sharey=True, squeeze=False)[0]
    lines = list(dict.fromkeys((row["router"], row["policy"]) for row in record["rows"]))
    for axes, experts in zip(panels, shapes, strict=True):
        for colour, (router, policy) in zip(_colours(len(lines)), lines, strict=True):
            mine = [
                row
                for row in record["rows"]
                if (row["experts"], row["router"], row["policy"]) == (experts, router, policy)
            ]
            for row in mine:
                _point(axes, row["batch"], row, colour, "o")
            label = (
                router if policy == "vanilla" and router != "oea-server" else f"{router} {policy}"
            )
            axes.plot(
                [row["batch"] for row in mine],
                [row["latency_us"] for row in mine],
                color=colour,
                label=label,
            )
        axes.set(
            xlabel="batch, tokens", title=f"{experts} experts, top {record['k']}", ylim=(0, None)
        )
        axes.set_xscale("log", base=2)
        batches = sorted({row["batch"] for row in record["rows"]})
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("one routing, µs (median, quartiles)")
    figure.suptitle(f"{record['logits']['kind']} logits, {record['machine']['name']}")
    _finish(panels[0])
    return figure


def _serve(record: Record) -> Figure:
    """Time per token against concurrency, experts read, and with drafts what was accepted; one line
    a policy."""
    counts = {"unique_experts": "T, unique experts read per layer and step"}
    if "drafts" in record:
        counts["accept_length"] = "tokens accepted per request and step"
    figure = Figure(figsize=(5 * (1 + len(counts)), 4.5), layout="constrained")
    panels = figure.subplots(1, 1 + len(counts))
    labels = list(dict.fromkeys(row["policy"] for row in record["rows"]))
    batches = sorted({row["batch"] for row in record["rows"]})
    for colour, label in zip(_colours(len(labels)), labels, strict=True):
        mine = [row for row in record["rows"] if row["policy"] == label]
        x, middle = [row["batch"] for row in mine], [row["tpot_ms"] for row in mine]
        low, high = zip(*(row["tpot_ms_quartiles"] for row in mine), strict=True)
        below = [m - q for m, q in zip(middle, low, strict=True)]
        above = [q - m for m, q in zip(middle, high, strict=True)]
        panels[0].errorbar(x, middle, yerr=[below, above], color=colour, marker="o", label=label)
        for axes, name in zip(panels[1:], counts, strict=True):
            axes.plot(x, [row[name] for row in mine], color=colour, marker="o", label=label)
    panels[0].set_ylabel("time per output token, ms (median, quartiles)")
    for axes, said in zip(panels[1:], counts.values(), strict=True):
        axes.set_ylabel(said)
    for axes in panels:
        axes.set(xlabel="requests at once", ylim=(0, None))
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [str(batch) for batch in batches])
        _finish(axes)
    figure.suptitle(f"{record['model']['name']}, {record['machine']['name']}")
    return figure


def _point(axes: Axes, x: float, row: Record, colour: str, marker: str) -> None:
    lower, upper = row["latency_us_quartiles"]
    middle = row["latency_us"]
    axes.errorbar(
        x,
        middle,
        yerr=[[middle - lower], [upper - middle]],
        color=colour,
        marker=marker,
        elinewidth=1,
    )


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.ticklabel_format(axis="y", style="plain")
    axes.legend(fontsize=8, loc="upper left")


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
