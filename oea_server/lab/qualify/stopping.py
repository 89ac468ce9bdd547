"""SIGTERM during a run, which ends it as Ctrl-C does: the server gets its knobs back first."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

_asked = Event()


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """While this lasts, SIGTERM raises KeyboardInterrupt, also in a background job, whose SIGINT is
    ignored."""

    def interrupt(*_: object) -> None:
        _asked.set()
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        os.kill(os.getpid(), signal.SIGINT)

    _asked.clear()
    before = signal.signal(signal.SIGTERM, interrupt), signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def check() -> None:
    """Between two blocks: whether the interrupt got lost, as one does that meets Python in a
    finaliser.

    Raises:
        KeyboardInterrupt
    """
    if _asked.is_set():
        raise KeyboardInterrupt
