"""What pictures of records have in common."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from oea_server.lab.records import files
from oea_server.lab.records.record import Record

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#222222")
DOTS_PER_INCH = 130

MADE_OF = "Record"
"""The PNG's text that says of which record it was drawn."""


def save(figure: Figure, path: Path, record: Record) -> None:
    """Write a record's picture as PNG, with the record's digest in it."""
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={MADE_OF: files.digest(record)})


def made_of(path: Path) -> str | None:
    """The digest of the record that a PNG shows; None where it names none."""
    from PIL import Image

    with Image.open(path) as image:
        found: str | None = image.info.get(MADE_OF)
    return found
