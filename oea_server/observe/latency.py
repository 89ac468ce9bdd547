"""The latency of a MoE layer against the experts it reads, as `oea-server bench moe` measured
it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple


class Line(NamedTuple):
    """latency = intercept + slope x T, at one batch size."""

    source: str
    batch: int
    intercept_us: float
    slope_us: float

    def at(self, experts: float) -> float:
        """Microseconds of a layer that reads so many experts."""
        return self.intercept_us + self.slope_us * experts


def read(path: str) -> list[Line]:
    """The lines in a result of `bench moe`, one per batch size that it could fit.

    Raises:
        ValueError: one line; the file is not there or holds none.
    """
    try:
        fits = json.loads(Path(path).read_text(encoding="utf-8"))["fits"]
        lines = [
            Line(Path(path).name, fit["batch"], fit["intercept_us"], fit["slope_us"])
            for fit in fits
            if fit["slope_us"] is not None
        ]
    except OSError as error:
        raise ValueError(f"latency_line={path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(
            f"latency_line={path}: not a moe-*.json of 'oea-server bench moe'"
        ) from None
    if not lines:
        raise ValueError(
            f"latency_line={path}: it fitted no line; run 'oea-server bench moe' with more policies"
        )
    return lines


def problems(path: str | None) -> list[str]:
    """Why there is nothing to predict with, if there should be."""
    try:
        if path is not None:
            read(path)
        return []
    except ValueError as error:
        return [str(error)]


def nearest(lines: list[Line], batch: float) -> Line:
    """The line of the batch size next to this one."""
    return min(lines, key=lambda line: abs(line.batch - batch))
