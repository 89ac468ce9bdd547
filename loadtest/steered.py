"""The record of a controller under steps of load, as a page and as a picture over time."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from loadtest.steer import CONTROLLER, best_alone
from oea_server.lab.records.pictures import COLOURS, save
from oea_server.lab.records.tables import NONE, made_by, table

Record = dict[str, Any]

PANELS = (
    ("tpot", "TPOT, ms", 1e3),
    ("unique", "T", 1.0),
    ("mass_kept", "mass kept", 1.0),
    ("rung", "rung", 1.0),
)


def markdown(record: Record, name: str) -> str:
    """The page; its picture lies beside it as `name`.png."""
    plan = record["plan"]
    target, floor = 1e3 * plan["target"], plan["floor"]
    load = ", ".join(f"{step['chats']} chats for {step['seconds']:.0f} s" for step in plan["load"])
    best = best_alone(record["rows"])
    header = ["what serves", "spans", "late", "poor", "TPOT, ms", "T", "mass kept", "tokens"]
    for step in plan["load"]:
        header += [f"at {step['chats']}: late", "mass kept"]
    rows = [
        [
            f"**{row['side']}**" if row["side"] in (CONTROLLER, best) else row["side"],
            *_cells(row),
            *(
                cell
                for each in row["steps"]
                for cell in (f"{each['late']} of {each['spans']}", _three(each["mass_kept"]))
            ),
        ]
        for row in record["rows"]
    ]
    return "\n".join(
        [
            (
                f"# A controller under steps of load, {record['model']['name']}:"
                f" {record['machine']['name']}"
            ),
            "",
            f"Target {target:.0f} ms between two tokens, floor {floor} of the router mass; {load}."
            f" Rounds: {plan['rounds']}, in each every side once, in an order drawn at random. A"
            " span is 5 s: late if the mean time between two tokens of its chats, as the clients"
            " saw them, is over the target; poor if it keeps less mass than the floor. "
            + (f"Of single rungs {best} misses least." if best else ""),
            "",
            *table(header, rows),
            "",
            f"![over time]({name}.png)",
            "",
            *_moves(record),
            "",
            *made_by(record, plan["seed"]),
            "",
        ]
    )


def _cells(row: Record) -> list[str]:
    return [
        str(row["spans"]),
        str(row["late"]),
        str(row["poor"]),
        NONE if row["tpot"] is None else f"{1e3 * row['tpot']:.1f}",
        NONE if row["unique"] is None else f"{row['unique']:.1f}",
        _three(row["mass_kept"]),
        str(row["tokens"]),
    ]


def _three(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def _moves(record: Record) -> list[str]:
    """What the controller said in the first round, whenever that changed."""
    first = next(each for each in record["played"] if each["side"] == CONTROLLER)
    spans = first["spans"]
    rows = []
    for move in first["moves"]:
        seconds = spans[move["look"] - 1]["seconds"] if 0 < move["look"] <= len(spans) else 0.0
        rung = f"{move['rung']}{', saturated' if move['saturated'] else ''}"
        rows.append([f"{seconds:.0f}", str(rung), move["reason"]])
    return [
        "What the controller said in its first round, as it was asked every 5 s:",
        "",
        *table(["s", "rung", "why"], rows, names=3),
    ]


def draw(record: Record, path: Path) -> None:
    """Time per token, T, mass and rung over time: the controller, the first rung, and the best
    single one."""
    plan = record["plan"]
    best = best_alone(record["rows"])
    shown = dict.fromkeys(
        [CONTROLLER, plan["rungs"][0]["name"] if best else CONTROLLER, best or CONTROLLER]
    )
    figure = Figure(figsize=(10, 9), layout="constrained")
    panels = figure.subplots(len(PANELS), 1, sharex=True)
    for axes, (key, label, scale) in zip(panels, PANELS, strict=True):
        for colour, side in zip(COLOURS, shown, strict=False):
            if key == "rung" and side != CONTROLLER:
                continue
            for each in record["played"]:
                if each["side"] == side:
                    points = [
                        (s["seconds"], scale * s[key]) for s in each["spans"] if s[key] is not None
                    ]
                    name = side if each["round"] == 0 else None
                    axes.plot(*zip(*points, strict=True), ".-", color=colour, label=name, alpha=0.8)
        for edge in accumulate(step["seconds"] for step in plan["load"][:-1]):
            axes.axvline(edge, color="#bbbbbb", linestyle=":")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    panels[0].axhline(1e3 * plan["target"], color="#222222", linestyle="--", linewidth=1)
    panels[0].set_ylim(0, None)
    panels[2].axhline(plan["floor"], color="#222222", linestyle="--", linewidth=1)
    panels[3].set_yticks(range(len(plan["rungs"])), [rung["name"] for rung in plan["rungs"]])
    panels[0].legend(fontsize=8)
    panels[-1].set_xlabel("s; dotted: the number of chats changes")
    save(figure, path, record)
