"""Tasks that another virtual environment's libraries make, because their pins clash with ours, or
are many."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

TIMEOUT = 600.0
"""Seconds for all tasks of a name."""


def asked(file: str, flag: str, python: tuple[str, str], words: list[str]) -> list[dict[str, Any]]:
    """The lines that a file of this folder prints, run by a Python that has its library.

    Args:
        file: such as gym.py, which imports nothing of ours.
        flag: the option and its value that ask for this, as a user types them.
        python: the option that names the Python, and its value.

    Raises:
        ValueError: one line: no such Python, no library in it, or what the file says.
    """
    # without -P its folder would come first, and a `statistics` in it stands before Python's
    command = [python[1], "-P", str(Path(__file__).with_name(file)), "tasks", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except OSError as error:
        raise ValueError(f"{'='.join(python)}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"{flag}: took more than {TIMEOUT:.0f} s") from None
    if done.returncode:
        raise ValueError((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    return [json.loads(line) for line in done.stdout.splitlines()]
