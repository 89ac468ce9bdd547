"""A stub to load, and Locust as its users run it: in a process of its own, for it patches the one
it is in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.loadtest.stub import Stub

ROOT = Path(__file__).parents[2]
LOCUST = (sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py")


class Outcome(NamedTuple):
    """What a run of Locust came to."""

    code: int
    output: str
    figures: dict[str, Any]


Locust = Callable[..., Outcome]


@pytest.fixture
def stub() -> Iterator[Stub]:
    started = Stub()
    yield started
    started.stop()


@pytest.fixture
def locust(tmp_path: Path) -> Locust:
    """Run it, headless, against a server."""

    def run(url: str, *flags: str, environment: dict[str, str] | None = None) -> Outcome:
        figures = tmp_path / "figures.json"
        figures.unlink(missing_ok=True)
        command = [*LOCUST, "--headless", "--host", url, "--figures", str(figures), *flags]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        output = done.stdout + done.stderr
        return Outcome(
            done.returncode, output, json.loads(figures.read_text()) if figures.exists() else {}
        )

    return run
