"""A release of SGLang, fetched from the package index and unpacked, without being installed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

KEPT = Path(tempfile.gettempdir()) / "oea-sglang-releases"
"""Where releases lie once they were fetched: 30 MB each, and 60 unpacked."""


class FetchError(Exception):
    """Why a release cannot be had: one line."""


class Release(NamedTuple):
    """One release on disk."""

    version: str
    root: Path
    """The folder with `sglang/` in it."""
    sha256: str
    """Of its wheel."""


def release(version: str, folder: Path) -> Release:
    """A release, from `folder` or else from the package index.

    Raises:
        FetchError: the index has no such release, or cannot be reached.
    """
    wheel = _wheel(version, folder)
    root = folder / version
    if not root.is_dir():
        with tempfile.TemporaryDirectory(dir=folder) as half:
            _unpack(wheel, Path(half) / version)
            (Path(half) / version).rename(root)
    return Release(version, root, hashlib.sha256(wheel.read_bytes()).hexdigest())


def _wheel(version: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pattern = f"sglang-{version}-*.whl"
    if not (there := sorted(folder.glob(pattern))):
        command = ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "-q", *command, f"sglang=={version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if not (there := sorted(folder.glob(pattern))):
            why = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), "")
            raise FetchError(f"SGLang {version} cannot be fetched: {why or done.stderr.strip()}")
    return there[0]


def _unpack(wheel: Path, root: Path) -> None:
    """Its Python sources, and the list by which pip uninstalls it."""
    with zipfile.ZipFile(wheel) as opened:
        names = [name for name in opened.namelist() if name.startswith("sglang/")]
        wanted = [name for name in names if name.endswith(".py")]
        listed = [name for name in opened.namelist() if name.endswith(".dist-info/RECORD")]
        opened.extractall(root, [*wanted, *listed])
