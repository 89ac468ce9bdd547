"""What is made of a record, by its benchmark: its page, its picture, and what else there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks import harnesses
from loadtest import compare, soaked, steered
from loadtest import report as ab
from loadtest.chaos import outcome
from oea_server.lab.bench import plot
from oea_server.lab.bench import report as bench
from oea_server.lab.qualify import compact
from oea_server.lab.qualify import pages as qualified
from oea_server.lab.qualify.document import document
from oea_server.lab.quality import picture, report, served_evaluation
from oea_server.lab.quality.search import exhaustive
from oea_server.lab.quality.search import page as search
from oea_server.lab.quality.search import picture as searched
from oea_server.lab.records import files
from oea_server.lab.records.record import Record


class Kind(NamedTuple):
    """One benchmark's.

    Args:
        page: record, its name -> Markdown, whose first line is a title.
        draw: record, path of a PNG.
        more: suffix -> record -> the text of such a file.
    """

    page: Callable[[Record, str], str]
    draw: Callable[[Record, Path], None] | None = None
    more: Mapping[str, Callable[[Record], str]] = {}


def _alone(page: Callable[[Record], str]) -> Callable[[Record, str], str]:
    return lambda record, name: page(record)


_MEASURED = Kind(_alone(bench.markdown), plot.draw)
KINDS = {
    "moe": _MEASURED,
    "router": _MEASURED,
    "serve": _MEASURED,
    "tiers": _MEASURED,
    "ab": Kind(
        _alone(ab.markdown),
        more={".html": ab.page, ".csv": lambda record: ab.lines(record["blocks"])},
    ),
    "steer": Kind(steered.markdown, steered.draw),
    "compare": Kind(_alone(compare.markdown)),
    "soak": Kind(_alone(soaked.markdown), soaked.draw),
    "chaos": Kind(_alone(outcome.markdown)),
    "eval": Kind(_alone(report.markdown), picture.draw),
    "eval-served": Kind(_alone(served_evaluation.markdown)),
    "harnesses": Kind(_alone(harnesses.page)),
    "calibrate": Kind(_alone(search.markdown), searched.draw),
    "calibrate-exhaustive": Kind(_alone(exhaustive.markdown)),
    "qualify": Kind(_alone(qualified.markdown), more={".html": document}),
}
"""By a record's "benchmark". A record of another kind, or of none, is its own page."""


def records(folder: Path) -> dict[str, Record]:
    """A folder's records of these kinds, by name, as they were before they were made compact."""
    every = {path.stem: files.read(path) for path in sorted(folder.glob("*.json"))}
    return {
        name: compact.unpacked(record) if record["benchmark"] == "qualify" else record
        for name, record in every.items()
        if record.get("benchmark") in KINDS
    }
