"""Keeps other threads away from CUDA while a graph is captured.

torch and SGLang capture in CUDA's mode "global": a call of any other thread that CUDA holds unsafe
(to query an event, to copy to pageable memory) fails then, and takes the capture down with it.
SGLang captures while it serves, too: after an update of weights, after a change of its role, for
the sizes of pictures. So the reporter's thread and each capture exclude one another.
"""

from __future__ import annotations

import threading
from functools import wraps
from typing import Any

ongoing = threading.RLock()
"""A lock, held while a graph is captured, and by code that must not touch CUDA during a capture."""


def watch(graph: type) -> None:
    """Have each capture of a graph hold `ongoing`, from `capture_begin` to `capture_end`.

    Args:
        graph: `torch.cuda.CUDAGraph`, through whose methods all of torch's and SGLang's captures
            go.
    """
    if hasattr(graph.capture_begin, "__wrapped__"):  # type: ignore[attr-defined]
        return
    begin, end = graph.capture_begin, graph.capture_end  # type: ignore[attr-defined]
    held: set[int] = set()

    @wraps(begin)
    def capture_begin(self: Any, *args: Any, **kwargs: Any) -> Any:
        ongoing.acquire()
        try:
            begun = begin(self, *args, **kwargs)
        except BaseException:
            ongoing.release()
            raise
        held.add(id(self))
        return begun

    @wraps(end)
    def capture_end(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return end(self, *args, **kwargs)
        finally:
            if id(self) in held:
                held.remove(id(self))
                ongoing.release()

    graph.capture_begin, graph.capture_end = capture_begin, capture_end  # type: ignore[attr-defined]
