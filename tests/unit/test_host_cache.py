"""What is compiled for the CPU runs, whether or not there is room to keep it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from numba.core import caching, config

from oea_server.routing.compiled import compiled

CALLED = """from numba.extending import register_jitable


@register_jitable
def step(number):
    return number + {step}
"""
CALLS = """from called import step
from oea_server.routing.compiled import compiled


def plus(number):
    return step(number)


run = compiled(plus, "called")
"""


def one_more(number: int) -> int:
    return number + 1


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where numba keeps what it compiles."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def test_it_is_kept(kept: Path) -> None:
    assert compiled(one_more)(1) == 2
    assert list(kept.rglob("*.nbc"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_it_runs_where_it_cannot_be_kept(
    kept: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def save(*_: Any) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", save)
    assert compiled(one_more)(1) == 2
    assert not list(kept.rglob("*.nbc"))


def test_it_is_compiled_anew_when_what_it_calls_has_changed(kept: Path) -> None:
    found = {}
    for step in (1, 2):
        (kept / "called.py").write_text(CALLED.format(step=step))
        (kept / "calls.py").write_text(CALLS)
        os.utime(kept / "calls.py", (0, 0))  # all that numba looks at
        found[step] = subprocess.run(
            [sys.executable, "-c", "import calls; print(calls.run(1))"],
            cwd=kept,
            env=os.environ
            | {"NUMBA_CACHE_DIR": str(kept / "cache"), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    assert found == {1: "2\n", 2: "3\n"}
