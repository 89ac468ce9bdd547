"""Room in /dev/shm, tried before a server starts: without room SGLang's processes end by SIGBUS,
which says nothing."""

from __future__ import annotations

import errno
import os
import tempfile

PLACE = "/dev/shm"
NEEDED = 1 << 20
"""Bytes: fewer than any server takes. Ranks that share a model reserve 24 MiB, and use what they
send each other."""
TELLING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def problems() -> list[str]:
    """Why a server's processes could not share memory; [] if they may."""
    if not os.path.isdir(PLACE):
        return []
    try:
        with tempfile.TemporaryFile(dir=PLACE) as file:
            os.posix_fallocate(file.fileno(), 0, NEEDED)
    except OSError as error:
        if error.errno not in TELLING:
            return []
        why = (
            "a server's processes share memory there; give the container more (--shm-size), or"
            " clear it"
        )
        return [f"{PLACE}: {error.strerror}: {why}"]
    return []
