"""What was measured, a line each in a file, so that a search that was interrupted, or asks for
more, goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oea_server.lab.quality.grid import OtherRunError

Key = tuple[int, int, str]
"""Batch size, piece of the text, rule."""


class Measured(NamedTuple):
    """One rule on one piece of the text at one batch size.

    Args:
        loss: mean cross-entropy of each of its sequences, nats per token [s] float64.
        reads: experts read per layer and step, mean over the piece: unique ones, or the busiest
            rank's.
        unique: T likewise.
        kept: router mass of the chosen experts over vanilla's, mean over the piece.
        tokens: that went through the model.
    """

    loss: NDArray[np.float64]
    reads: float
    unique: float
    kept: float
    tokens: int


class Ledger:
    """A file of lines; what it does not have yet is measured and added."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        """Go on from a file.

        Args:
            about: what has to be the same for that: the model, the text, the pieces, what counts as
                read.

        Raises:
            OtherRunError: it is not.
        """
        self.path, self.have = path, _read(path, about)
        if not self.have and not (path.exists() and path.stat().st_size):
            path.write_text(json.dumps(about) + "\n", encoding="utf-8")
        elif not path.read_bytes().endswith(b"\n"):
            with path.open("a", encoding="utf-8") as lines:
                lines.write("\n")  # the run before was cut within a line

    def get(self, key: Key, measure: Callable[[], Measured]) -> Measured:
        """A line: the file's, or a new one."""
        if key not in self.have:
            self.have[key] = found = measure()
            batch, piece, rule = key
            line = {
                "batch": batch,
                "piece": piece,
                "rule": rule,
                **found._asdict(),
                "loss": found.loss.round(6).tolist(),
            }
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(line) + "\n")
        return self.have[key]


def _read(path: Path, about: dict[str, Any]) -> dict[Key, Measured]:
    if not path.exists() or not path.stat().st_size:
        return {}
    first, *rest = path.read_bytes().decode(errors="replace").split("\n")
    try:
        same = json.loads(first) == json.loads(json.dumps(about))
    except ValueError:
        same = False
    if not same:
        raise OtherRunError(
            f"{path} is of another search (model, text, seed or ranks differ): move it away"
        )
    found: dict[Key, Measured] = {}
    for text in rest:
        try:
            line = json.loads(text)
        except ValueError:
            continue  # cut by the end of the run that wrote it
        key = (line.pop("batch"), line.pop("piece"), line.pop("rule"))
        found[key] = Measured(**line | {"loss": np.asarray(line["loss"])})
    return found
