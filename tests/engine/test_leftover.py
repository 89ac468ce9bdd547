"""SGLang without patches beside a file that a patched one left behind, and one that lacks that
file."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from oea_server.engine import plugin
from oea_server.patching.installed import look
from tests.engine.patched import IS_PATCHED, patched_copy

pytestmark = pytest.mark.skipif(IS_PATCHED, reason="these tests run on a patched copy")
OURS = Path(__file__).parents[2]
ADDED = "sglang/srt/layers/moe/batch_routing.py"


def loaded(folder: Path) -> subprocess.CompletedProcess[str]:
    """A process in which SGLang loads its plug-ins."""
    script = """
from sglang.srt.plugins import load_plugins
load_plugins()
from oea_server.engine import plugin
print("served on", plugin.active, plugin.patched, plugin.leftover())
"""
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{OURS}"}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_file_that_was_left_behind_is_not_imported(tmp_path: Path) -> None:
    """Whatever it holds, the hooks are taken, and it is named."""
    folder = patched_copy(tmp_path)
    look(version("sglang"), folder).revert()
    (folder / ADDED).write_text("this is no Python\n")
    done = loaded(folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"served on True False {folder / ADDED}"


def test_a_patched_sglang_without_it_is_half_patched(tmp_path: Path) -> None:
    folder = patched_copy(tmp_path)
    (folder / ADDED).unlink()
    done = loaded(folder)
    assert done.returncode == 2
    assert (
        f"SGLang is half patched (without {plugin.PATCHED}); run: oea-server patch apply"
        in done.stderr
    )
    assert "served on" not in done.stdout
