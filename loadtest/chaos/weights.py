"""Faults of a checkpoint's weight file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oea_server_demo import MODEL

from loadtest.chaos.arena import server
from loadtest.chaos.outcome import Outcome
from loadtest.chaos.starting import refused, start

WEIGHTS = "model.safetensors"


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of the demo model."""
    with tempfile.TemporaryDirectory(prefix="loadtest-model-") as folder:
        yield Path(shutil.copytree(MODEL, Path(folder) / "model"))


async def truncated() -> Outcome:
    """The weight file is cut in the middle, as by a copy that broke off: the server must not start,
    and say why."""
    with copied() as model:
        weights = model / WEIGHTS
        with weights.open("r+b") as file:
            file.truncate(weights.stat().st_size // 2)
        running = server("--model-path", str(model))
        try:
            return refused("a truncated weight file", await start(running), str(weights))
        finally:
            running.stop()
