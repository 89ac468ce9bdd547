"""Processes that SGLang spawned: each ends with its parent, from its first line on.

SGLang asks the kernel for that itself, but not in HTTP workers, and elsewhere only after its
imports: a parent that is gone by then is never missed. The child would hold memory, or the port,
until somebody finds it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have the kernel end this process when its parent dies; end it now if that is over."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if not parent.is_alive():
        os.kill(os.getpid(), signal.SIGKILL)
