"""The page and the picture of what `bench serve --tiers` has measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oea_server.lab.records.record import Record
from oea_server.lab.records.tables import NONE, micro, ratio, spread, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TIERS = ("exact", "auto")


def lines(record: Record) -> list[str]:
    """The page, except how it was made."""
    model, bandwidth = record["model"], record["bandwidth"]
    return [
        f"# What exact requests cost, {model['name']}: {record['machine']['name']}",
        "",
        (
            f"{model['layers']} layers, {model['bytes_per_expert'] / 1e6:.2f} MB an expert."
            f" {record['chats']} streamed completions of {record['tokens']} tokens at once, of"
            " which a share is of a tier that promises exact tokens and the others are guaranteed"
            f" k0={record['k0']}; {record['repeats']} measured rounds of each share, and of"
            " vanilla, in turn on one server. TPOT is what a client sees after the first token,"
            " medians with quartiles; over vanilla is of all requests together, the median of the"
            " ratios of rounds that took turns. Mass kept is the share of the router mass of the"
            " model's own top k that the chosen experts of a tier's tokens hold. The floor is the"
            f" time to read T experts in every layer at {bandwidth['gb_per_s']:.1f} GB/s, measured"
            " between the rounds."
        ),
        "",
        *table(
            [
                *(
                    "exact requests",
                    "T",
                    "mass kept, exact",
                    "mass kept, auto",
                    "TPOT exact, ms",
                    "TPOT auto, ms",
                ),
                *("over vanilla", "step, ms", "floor, ms", "tokens/s"),
            ],
            (
                [
                    (
                        "vanilla"
                        if row["share"] == "vanilla"
                        else f"{row['share']} % ({row['exact_chats']})"
                    ),
                    f"{row['unique_experts']:.1f}",
                    *(
                        NONE if row["mass_kept"][tier] is None else f"{row['mass_kept'][tier]:.4f}"
                        for tier in TIERS
                    ),
                    *(_tpot(row["tpot_ms"][tier]) for tier in TIERS),
                    ratio(row["tpot_over_vanilla"]),
                    micro(row["latency_us"] / 1e3),
                    micro(row["floor_us"] / 1e3),
                    f"{row['tokens_per_s']:.1f}",
                ]
                for row in record["rows"]
            ),
        ),
    ]


def _tpot(found: list[float] | None) -> str:
    return NONE if found is None else spread(found[0], found[1:])


def draw(record: Record) -> Figure:
    """Experts read, time per token of each tier, and mass kept, against the share of exact
    requests."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.5), layout="constrained")
    panels = figure.subplots(1, 3)
    rows = [row for row in record["rows"] if row["share"] != "vanilla"]
    (vanilla,) = (row for row in record["rows"] if row["share"] == "vanilla")
    panels[0].plot(
        [int(row["share"]) for row in rows],
        [row["unique_experts"] for row in rows],
        marker="o",
        label="T",
    )
    panels[0].axhline(vanilla["unique_experts"], color="grey", linestyle="--", label="vanilla")
    for tier, colour in zip(TIERS, ("C3", "C0"), strict=True):
        mine = [row for row in rows if row["tpot_ms"][tier] is not None]
        x, found = [int(row["share"]) for row in mine], [row["tpot_ms"][tier] for row in mine]
        errors = [[m - low for m, low, _ in found], [high - m for m, _, high in found]]
        panels[1].errorbar(
            x, [m for m, _, _ in found], yerr=errors, color=colour, marker="o", label=tier
        )
        panels[2].plot(
            x, [row["mass_kept"][tier] for row in mine], color=colour, marker="o", label=tier
        )
    panels[1].axhline(vanilla["tpot_ms"]["auto"][0], color="grey", linestyle="--", label="vanilla")
    said = (
        "T, unique experts read per layer and step",
        "time per output token, ms (median, quartiles)",
        "router mass kept",
    )
    for axes, label in zip(panels, said, strict=True):
        axes.set(xlabel="exact requests, %", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    panels[0].set_ylim(0, None)
    panels[1].set_ylim(0, None)
    figure.suptitle(
        f"{record['model']['name']}, {record['chats']} requests at once,"
        f" {record['machine']['name']}"
    )
    return figure
