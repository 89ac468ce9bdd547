"""A soak's record as a page and a picture of memory over requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from oea_server.lab.records.pictures import COLOURS, save
from oea_server.lab.records.tables import made_by, table

Record = dict[str, Any]


def markdown(record: Record) -> str:
    """The page; its picture lies beside it as soak.png."""
    beside: Record | None = record.get("beside")
    turns = f", in {record['blocks']} turns with SGLang without us" if beside else ""
    return "\n".join(
        [
            f"# Soak: {record['machine']['name']}",
            "",
            f"At {', '.join(map(str, record['concurrency']))} at once{turns}.",
            "",
            f"Ours: {_told(record)}",
            "",
            *([f"SGLang without us: {_told(beside)}", ""] if beside else []),
            *table(
                ["process", "MiB before", "after", "MiB per 1000 requests", "handles", "threads"],
                [
                    *_rows(record, "ours, " if beside else ""),
                    *(
                        []
                        if beside is None
                        else [*_as_far(record, beside), *_rows(beside, "without us, ")]
                    ),
                ],
            ),
            "",
            (
                "The slope is of least squares over a sample each second, with its standard error,"
                " which takes samples for independent."
            ),
            "",
            "![memory](soak.png)",
            "",
            *made_by(record),
            "",
        ]
    )


def _told(side: Record) -> str:
    """How a server's requests ended."""
    endings = ", ".join(f"{count} {ending}" for ending, count in sorted(side["endings"].items()))
    load = ", ".join(f"{name} {number}" for name, number in side["after"]["load"].items())
    same = "the same" if side["greedy_the_same"] else "NOT the same"
    return (
        f"{side['requests']} requests, after {side['warm_up']} to warm up, in {side['seconds']:.0f}"
        f" s: {side['requests_per_s']:.1f} requests and {side['output_tokens_per_s']:.0f} tokens a"
        f" second. Endings, warm-up included: {endings}. Greedy answers before and after: {same}."
        f" Left on the idle server: {load}. Missed: {'; '.join(side['missed']) or 'nothing'}."
    )


def _rows(side: Record, whose: str) -> list[list[str]]:
    before, after = side["before"], side["after"]
    return [
        [
            f"{whose}{role}",
            *(f"{held['rss'][role]:.0f}" for held in (before, after)),
            _slope(slope),
            *(
                f"{before[what][role]} → {after[what].get(role, 0)}"
                for what in ("handles", "threads")
            ),
        ]
        for role, slope in side["slopes_mib_per_1000"].items()
    ]


def _as_far(record: Record, beside: Record) -> list[list[str]]:
    """Ours over as many requests as the other server had: memory grows fastest at first."""
    return [
        [f"ours, {role}, the first {beside['requests']}", "", "", _slope(slope), "", ""]
        for role, slope in record["slopes_as_far_mib_per_1000"].items()
    ]


def _slope(slope: dict[str, float]) -> str:
    return f"{slope['per_1000']:+.2f} ± {slope['error']:.2f}"


def draw(record: Record, path: Path) -> None:
    """Each process's memory over requests; PNG."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    sides = {"": record, " without us": record.get("beside")}
    for colour, role in zip(COLOURS, record["slopes_mib_per_1000"], strict=False):
        for (whose, side), style in zip(sides.items(), ("-", "--"), strict=True):
            if side is not None:
                counts, held = zip(
                    *((s["requests"], s["rss"][role]) for s in side["samples"]), strict=True
                )
                axes.plot(counts, held, style, color=colour, label=role + whose)
    axes.set(
        xlabel="requests after the warm-up",
        ylabel="resident memory that is no file's, MiB",
        ylim=(0, None),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path, record)
