"""A picture that says what it shows: a hash of its source in the PNG's own text."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

KEY = "shows-sha256"


def digest(source: str) -> str:
    """The hash of what a picture shows."""
    return hashlib.sha256(source.encode()).hexdigest()


def save(
    png: bytes, path: Path, shown: str, method: Image.Quantize = Image.Quantize.MAXCOVERAGE
) -> None:
    """Write a screenshot, with 256 colours and the hash of what it shows.

    Args:
        method: MAXCOVERAGE keeps a colour that few pixels have, such as the dot beside "Live";
            MEDIANCUT keeps the many tints of many charts.
    """
    text = PngInfo()
    text.add_text(KEY, shown)
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    few = picture.quantize(256, method, kmeans=2, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    few.save(path, optimize=True, pnginfo=text)


def read(path: Path) -> str | None:
    """The hash of what a picture shows; None for one that doesn't say."""
    with Image.open(path) as picture:
        shown = picture.info.get(KEY)
    return None if shown is None else str(shown)
