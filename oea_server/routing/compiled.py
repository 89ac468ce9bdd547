"""Functions that numba compiles, at their first call, for a machine."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any], *beside: str) -> Callable[..., Any]:
    """The function, compiled; the result is kept where there is a place for it.

    Args:
        beside: modules of the same folder of which the function calls something. Numba sees a
            change in the function's own file alone.
    """
    try:
        found = njit(cache=True)(function)
    except RuntimeError:  # neither this folder nor the user's cache can be written
        return njit(function)  # type: ignore[no-any-return]
    own = Path(function.__code__.co_filename)
    content = b"".join(
        each.read_bytes() for each in (own, *(own.with_name(f"{name}.py") for name in beside))
    )
    found._cache._cache_file._source_stamp = hashlib.sha256(content).hexdigest()
    keep = found._cache.save_overload

    def keep_if_it_can_be(*compiled: Any) -> None:
        with contextlib.suppress(OSError):  # it is full, or read-only by now
            keep(*compiled)

    found._cache.save_overload = keep_if_it_can_be
    return found  # type: ignore[no-any-return]
