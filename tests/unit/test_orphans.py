"""A process that was spawned does not outlive the one that spawned it, whenever that dies."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

PARENT = """
import multiprocessing, os, sys, time
sys.path.insert(0, os.path.dirname(sys.argv[2]))
import spawned
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    child = multiprocessing.Process(target=spawned.run, args=(sys.argv[1], sys.argv[2]))
    child.start()
    print(child.pid, flush=True)
    child.join()
"""
SPAWNED = """
import os, time
from pathlib import Path
from oea_server.engine import orphans

def run(when, place):
    Path(place).touch()
    if when == "before":  # it imports for so long that its parent is dead by then
        while os.path.exists(place):
            time.sleep(0.02)
    if when != "never":
        orphans.end_with_parent()
    Path(place + "-on").touch()
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("when", "goes_on"), [("before", False), ("after", False), ("never", True)]
)
def test_a_spawned_process_ends_with_its_parent(when: str, goes_on: bool, tmp_path: Path) -> None:
    for name, text in (("parent.py", PARENT), ("spawned.py", SPAWNED)):
        (tmp_path / name).write_text(text)
    place = tmp_path / "here"
    command = [sys.executable, str(tmp_path / "parent.py"), when, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        try:
            _until(place.exists)
            if when != "before":
                _until(Path(f"{place}-on").exists)
            parent.kill()
            parent.wait(10)
            place.unlink()
            if goes_on:
                _until(lambda: child.ppid() != parent.pid)
                assert child.status() != psutil.STATUS_ZOMBIE
            else:
                child.wait(30)
        finally:
            if child.is_running():
                child.kill()
    assert Path(f"{place}-on").exists() == (when != "before")


def _until(true: object) -> None:
    deadline = time.monotonic() + 60
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)
