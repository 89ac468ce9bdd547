"""Which files of a folder can be read at all: a link, a pipe or a huge file may lie there as
well."""

from __future__ import annotations

import os
import stat
from pathlib import Path

LARGEST = 64 * 1024 * 1024
"""Bytes; a model of 128 layers and 512 experts has snapshots of 4 MiB."""


def unfit(path: Path) -> str | None:
    """Why a file is none to open; None if it is one."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        return "no plain file"
    if found.st_size > LARGEST:
        return f"{found.st_size} bytes, more than {LARGEST}"
    return "empty" if found.st_size == 0 else None


def read(path: Path) -> bytes:
    """All of a plain file.

    Raises:
        OSError
        ValueError: it is none, or too large.
    """
    if why := unfit(path):
        raise ValueError(why)
    # what is looked at may be another file by now: neither a link is followed nor a pipe waited for
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        return file.read(LARGEST)


def create(path: Path) -> int:
    """A handle of a new file that only its user can read, in place of whatever has its name.

    Raises:
        OSError
    """
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
