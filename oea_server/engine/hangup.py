"""A closed terminal ends the server as SIGTERM does: what is being answered is answered to its end.

The terminal sends SIGHUP to every process of its group. Whoever serves HTTP drains; the others,
without which it could not, wait for it to end them.

Seam: AROUND `uvicorn.supervisors.multiprocess.Multiprocess.handle_hup`, for several HTTP workers.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

before: Any = signal.SIG_DFL
"""What SIGHUP did in this process before us."""


def drain() -> None:
    """Have SIGHUP do in this process what SIGTERM does."""
    global before
    before = signal.getsignal(signal.SIGHUP)
    _handle(lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))


def ignore() -> None:
    """Have this process leave SIGHUP to the one that serves HTTP."""
    _handle(signal.SIG_IGN)


def around_handle_hup(original: Callable[[Any], None], supervisor: Any) -> None:
    """uvicorn's supervisor takes SIGHUP over, below nohup as well, and starts its workers anew."""
    if before is signal.SIG_DFL:
        supervisor.handle_term()
    elif before is not signal.SIG_IGN:
        original(supervisor)


def _handle(handler: signal.Handlers | Callable[[int, Any], None]) -> None:
    """Handle SIGHUP, unless another handler is set: nohup's, or an app's around SGLang."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, handler)
