"""A start's own folder for metrics, inside the one that is given, or the one for temporary files.

prometheus_client and our snapshots add up whatever lies in a folder: an earlier start's and another
server's too. The folder's name tells starts apart, whatever the clock says; a start's processes
find it in the variable."""

from __future__ import annotations

import atexit
import fcntl
import os
import re
import shutil
import tempfile
import uuid
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
NAME = re.compile(r"oea-[0-9a-f]{32}")

_held: list[int] = []
"""Handles of the folders that this process made: open, and so locked, until it ends."""


def current() -> Path | None:
    """The folder of the start that this process belongs to; None where none was made: a server
    without metrics."""
    place = Path(os.environ.get(VARIABLE, ""))
    return place if NAME.fullmatch(place.name) else None


def make() -> Path:
    """Make a start's folder and have this process and its children use it; clear away those of
    starts that are over.

    Raises:
        OSError: there is no place for it.
    """
    around = parent()
    sweep(around)
    while True:
        place = around / f"oea-{uuid.uuid4().hex}"
        place.mkdir(mode=0o700)
        if _hold(place):
            break
    os.environ[VARIABLE] = str(place)
    atexit.register(_remove, place, os.getpid())
    return place


def parent() -> Path:
    """Where the folder goes: not into that of a start whose variables were handed on, which ends
    before this one."""
    given = Path(os.environ.get(VARIABLE) or tempfile.gettempdir()).absolute()
    return given.parent if NAME.fullmatch(given.name) else given


def sweep(around: Path) -> None:
    """Remove the folders in it that starts of this user left behind when they were killed."""
    try:
        entries = list(os.scandir(around))
    except OSError:
        return  # whoever makes one there will say it better
    for entry in entries:
        try:
            ours = (
                NAME.fullmatch(entry.name)
                and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            )
            if ours and (handle := _locked(Path(entry.path))) is not None:
                shutil.rmtree(entry.path, ignore_errors=True)
                os.close(handle)
        except OSError:
            continue  # in use, or gone in the meantime


def _hold(place: Path) -> bool:
    """Keep others from sweeping it while this process lives; False if one has just done so.

    A lock and no process id: two containers that share a folder do not see each other's processes.
    """
    try:
        handle = _locked(place)
    except (BlockingIOError, FileNotFoundError):
        return False
    if handle is not None:
        _held.append(handle)
    return place.is_dir()


def _locked(place: Path) -> int | None:
    """An open handle with the lock; None where the file system has none, and so nothing is swept.

    Raises:
        BlockingIOError: somebody else has it.
        OSError: it cannot be opened, or is no folder.
    """
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:
        os.close(handle)
        return None
    return handle


def _remove(place: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not a fork of it
        shutil.rmtree(place, ignore_errors=True)
