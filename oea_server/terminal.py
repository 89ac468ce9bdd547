"""Standard output that takes any character, may be closed, and whose reader may leave."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import TextIO

ENCODING = "PYTHONIOENCODING"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What writing ends with on a disk without room, or a terminal that is gone."""


@contextlib.contextmanager
def forgiving() -> Iterator[None]:
    """Around a command: what a terminal cannot show is escaped, and a closed reader is no fault."""
    open_closed()
    escape()
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in FULL:
            raise
        give_up(sys.stdout, error)
        raise SystemExit(1) from None
    finally:
        leave(sys.stdout)


def open_closed() -> None:
    """Give what was closed before the start (`>&-`) to nobody, lest the next file that is opened
    takes its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def escape() -> None:
    """Write as ``\\u2713`` what the terminal's encoding does not have, here and in processes that
    this one starts."""
    encoding, errors = sys.stdout.encoding, "backslashreplace"
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors=errors)
    given, _, handler = os.environ.get(ENCODING, "").partition(":")
    if not handler and encoding.lower() not in ("utf-8", "utf8"):
        os.environ[ENCODING] = f"{given or encoding}:{errors}"


def leave(stream: TextIO) -> None:
    """Write what is left; where nobody reads, to nobody: at its exit Python would try again, and
    complain."""
    try:
        stream.flush()
    except OSError as error:
        give_up(stream, error)


def give_up(stream: TextIO, error: OSError) -> None:
    """Say why nothing more can be written, unless the reader has left."""
    nobody = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nobody, stream.fileno())
    os.close(nobody)
    if not isinstance(error, BrokenPipeError):
        print(f"oea-server: cannot write: {error.strerror}", file=sys.stderr)
