"""The shim that moves a process's wall clock moves it, and nothing that waits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.chaos.surroundings import SHIFTS, set_clock

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
    subprocess.run(["cc", *warnings, "-shared", "-fPIC", "-O2", "-o", library, SHIFTS, "-ldl"], check=True)
    set_clock(clock, 0)
    environment = {**os.environ, "LD_PRELOAD": str(library), "CLOCK_OFFSET": str(clock)}
    command = [sys.executable, "-c", WATCH, str(clock)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "held\n", done.stderr
