"""The shim that moves a process's wall clock moves it, and nothing that waits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.chaos.surroundings import SHIFTS, Numbers, set_clock, still

WATCH = """
import queue, sys, threading, time
from pathlib import Path
from loadtest.chaos.surroundings import set_clock

def waited(call):
    before = time.monotonic()
    call()
    return time.monotonic() - before

def empty():
    try:
        queue.Queue().get(timeout=0.1)
    except queue.Empty:
        pass

before, steady = time.time(), time.monotonic()
for jump in (3600, -3600, 0):
    set_clock(Path(sys.argv[1]), jump)
    moved = time.time() - before - (time.monotonic() - steady)
    assert abs(moved - jump) < 1, (jump, moved)
    for call in (lambda: time.sleep(0.1), lambda: threading.Event().wait(0.1), empty):
        assert 0.09 < waited(call) < 60, jump
print("held")
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_wall_clock_moves_and_waits_do_not(tmp_path: Path) -> None:
    library, clock = tmp_path / "clock.so", tmp_path / "offset"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    subprocess.run(
        ["cc", *warnings, "-shared", "-fPIC", "-O2", "-o", library, SHIFTS, "-ldl"], check=True
    )
    set_clock(clock, 0)
    environment = {**os.environ, "LD_PRELOAD": str(library), "CLOCK_OFFSET": str(clock)}
    command = [sys.executable, "-c", WATCH, str(clock)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "held\n", done.stderr


BEFORE = Numbers(t=5000.0, last=4999.5, steps=30, version=1, total=300, counted=300.0)
AFTER = Numbers(t=1401.0, last=1400.5, steps=10, version=2, total=310, counted=310.0)


def test_numbers_that_follow_a_clock_that_was_set_back() -> None:
    assert still(BEFORE, AFTER, 2, 1401.2) == []


@pytest.mark.parametrize(
    ("frozen", "said"),
    [
        ({"last": BEFORE.last}, "no point is new"),
        ({"steps": 0}, "no new point has steps"),
        ({"version": 1}, "/oea/stats is at version 1, not 2"),
        ({"total": BEFORE.total}, "the sum of steps stands still"),
        ({"counted": BEFORE.counted}, "/metrics stands still"),
        ({"t": 5001.0}, "/oea/stats has another time than the clock"),
        ({"last": 5000.5}, "the newest point is of another time than the clock"),
    ],
)
def test_a_number_that_does_not_is_named(frozen: dict[str, float], said: str) -> None:
    assert said in still(BEFORE, AFTER._replace(**frozen), 2, 1401.2)  # type: ignore[arg-type]
