"""File systems that are mounted for one server: its folders can be filled, or turned read-only
under it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from oea_server.client.server import SERVE

NEEDED = ("mount", "umount", "unshare", "nsenter")
FILLER = "filler"


def missing() -> str | None:
    """Why nothing can be mounted here; None if it can."""
    if os.geteuid() != 0 or not all(map(shutil.which, NEEDED)):
        return "needs root, to mount file systems"
    tried = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    )
    return (
        f"cannot mount: {tried.stderr.decode(errors='replace').strip()[:100]}"
        if tried.returncode
        else None
    )


@contextlib.contextmanager
def disk(kib: int) -> Iterator[Path]:
    """A file system of so many KiB, in memory."""
    place = Path(tempfile.mkdtemp(prefix="loadtest-disk-"))
    place.chmod(0o1777)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=1777", "tmpfs", str(place)], check=True
    )
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)
        place.rmdir()


def private(place: Path | None = None, over: str = "") -> tuple[str, ...]:
    """The command of a server with mounts of its own, where `place` lies over another folder."""
    lay = 'mount --bind "$1" "$2" && ' if place else ""
    return (
        "unshare",
        "-m",
        "sh",
        "-c",
        f'{lay}shift 2 && exec "$@"',
        "sh",
        str(place),
        over,
        *SERVE,
    )


def freeze(pid: int, *places: Path) -> None:
    """Let a server's processes open nothing for writing any more in these folders; what they have
    open stays so."""
    for place in places:
        _inside(pid, "mount", "--bind", str(place), str(place))
        _inside(pid, "mount", "-o", "remount,bind,ro", str(place))


def thaw(pid: int, *places: Path) -> None:
    """Undo `freeze`."""
    for place in reversed(places):
        _inside(pid, "umount", "-l", str(place))


def _inside(pid: int, *command: str) -> None:
    subprocess.run(["nsenter", "-t", str(pid), "-m", *command], check=True, capture_output=True)


@contextlib.contextmanager
def full(place: Path) -> Iterator[None]:
    """A folder with no byte left."""
    filler = place / FILLER
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    try:
        yield
    finally:
        filler.unlink()
