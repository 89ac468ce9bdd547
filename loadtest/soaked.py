"""A soak's record as a page and a picture of memory over requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from oea_server.bench.plot import COLOURS, DOTS_PER_INCH
from oea_server.bench.report import made_by, table

Record = dict[str, Any]


def markdown(record: Record) -> str:
    """The page; its picture lies beside it as soak.png."""
    before, after, slopes = record["before"], record["after"], record["slopes_mib_per_1000"]
    rows = [
        [
            role,
            *(f"{held['rss'][role]:.0f}" for held in (before, after)),
            f"{slopes[role]['per_1000']:+.2f} ± {slopes[role]['error']:.2f}",
            *(f"{before[what][role]} → {after[what].get(role, 0)}" for what in ("handles", "threads")),
        ]
        for role in slopes
    ]
    endings = ", ".join(f"{count} {ending}" for ending, count in sorted(record["endings"].items()))
    load = ", ".join(f"{name} {number}" for name, number in after["load"].items())
    return "\n".join(
        [
            f"# Soak: {record['machine']['name']}",
            "",
            f"{record['requests']} requests at {', '.join(map(str, record['concurrency']))} at once, after "
            f"{record['warm_up']} to warm up, in {record['seconds']:.0f} s: {record['requests_per_s']:.1f} requests "
            f"and {record['output_tokens_per_s']:.0f} tokens a second. Endings, warm-up included: {endings}. Greedy "
            f"answers before and after, under vanilla: {'the same' if record['greedy_the_same'] else 'NOT the same'}. "
            f"Left on the idle server: {load}. Missed: {'; '.join(record['missed']) or 'nothing'}.",
            "",
            *table(["process", "MiB before", "after", "MiB per 1000 requests", "handles", "threads"], rows),
            "",
            "The slope is of least squares over a sample each second, with its standard error, which takes samples for "
            "independent.",
            "",
            "![memory](soak.png)",
            "",
            *made_by(record),
            "",
        ]
    )


def draw(record: Record, path: Path) -> None:
    """Each process's resident memory over requests; PNG."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for colour, role in zip(COLOURS, record["slopes_mib_per_1000"], strict=False):
        samples = record["samples"]
        axes.plot([s["requests"] for s in samples], [s["rss"][role] for s in samples], color=colour, label=role)
    axes.set(xlabel="requests after the warm-up", ylabel="resident memory, MiB", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=DOTS_PER_INCH)
