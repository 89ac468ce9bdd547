"""The differences with their intervals beside the margin, drawn as SVG in the page's own
colours."""

from __future__ import annotations

from html import escape
from math import ceil, floor

from oea_server.lab.qualify.words import points
from oea_server.lab.records.record import Record

WIDTH, LEFT, RIGHT, ROW, FOOT = 900, 240, 30, 34, 44
STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
MOST_TICKS = 9


def differences(record: Record) -> str:
    """One line for each candidate, and one for each of its groups."""
    rows = []
    for name, verdict in record["verdicts"].items():
        if verdict["difference"] is not None:
            rows.append((name, verdict["verdict"].replace(" ", "-"), verdict["difference"]))
        rows += [
            (f"{name}: {each['group']}", "group", each["difference"]) for each in verdict["groups"]
        ]
    if not rows:
        return "<p>No answer could be checked.</p>"
    margin = record["plan"]["margin"]
    low = min(-margin, *(seen["low"] for _, _, seen in rows)) - 0.002
    high = max(margin, *(seen["high"] for _, _, seen in rows)) + 0.002
    step = next((each for each in STEPS if (high - low) / each < MOST_TICKS), STEPS[-1])
    bottom = ROW * len(rows) + 16

    def at(value: float) -> float:
        x: float = LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)
        return x

    ticks = [step * each for each in range(ceil(low / step), floor(high / step) + 1)]
    parts = [
        f'<line class="grid" x1="{at(x):.1f}" x2="{at(x):.1f}" y1="8" y2="{bottom}"/>'
        for x in ticks
    ]
    parts += [
        f'<text class="tick" x="{at(x):.1f}" y="{bottom + 16}">{_tick(x)}</text>' for x in ticks
    ]
    parts += [
        (
            f'<rect class="beyond" x="{LEFT}" y="8" width="{max(at(-margin) - LEFT, 0):.1f}"'
            f' height="{bottom - 8}"/>'
        ),
        (
            f'<line class="margin" x1="{at(-margin):.1f}" x2="{at(-margin):.1f}" y1="8"'
            f' y2="{bottom}"/>'
        ),
        f'<line class="zero" x1="{at(0):.1f}" x2="{at(0):.1f}" y1="8" y2="{bottom}"/>',
        (
            f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{bottom + 36}">points more'
            " (right) or less (left) often right than vanilla; shaded: beyond the margin</text>"
        ),
    ]
    for i, (name, kind, seen) in enumerate(rows):
        y = 8 + ROW * (i + 0.5)
        told = (
            f"{name}: {points(seen['value'])} points, {points(seen['low'])} to"
            f" {points(seen['high'])}"
        )
        parts.append(
            f'<g class="{kind}"><title>{escape(told)}</title><text class="name" x="{LEFT - 12}"'
            f' y="{y + 5}">{escape(_short(name))}</text><line x1="{at(seen["low"]):.1f}"'
            f' x2="{at(seen["high"]):.1f}" y1="{y}" y2="{y}"/><circle cx="{at(seen["value"]):.1f}"'
            f' cy="{y}" r="5"/></g>'
        )
    label = "Differences in right answers with intervals; the numbers are in the tables below"
    size = f'viewBox="0 0 {WIDTH} {bottom + FOOT}"'
    return (
        f'<div class="wide" tabindex="0"><svg {size} role="img"'
        f' aria-label="{label}">{"".join(parts)}</svg></div>'
    )


def _tick(value: float) -> str:
    return f"{100 * value:g}" if abs(value) > 1e-9 else "0"


def _short(name: str) -> str:
    return name if len(name) <= 30 else name[:29] + "…"
