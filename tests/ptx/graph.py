"""A CUDA graph without a GPU: what happens while it is captured is recorded, and replayed on the
same memory.

Stands for `torch.cuda.CUDAGraph` and `torch.cuda.graph`. Launches of Triton's kernels are recorded
by the driver and run through the interpreter; torch's operators are recorded as they are
dispatched. As on a GPU, nothing that changes memory happens at the capture; what is made in it
lives as long as the graph; a launch keeps nothing else alive, and whoever reads a value on the host
ends the capture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.ptx.driver import Driver
from tests.ptx.launch import Launch

READS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")
"""Operators whose answer the host waits for, which CUDA refuses during a capture."""


class FakeGraph:
    """Recorded work, in order."""

    def __init__(self) -> None:
        self.work: list[Launch | Callable[[], None]] = []
        self.kept: list[torch.Tensor] = []
        """The graph's own memory pool: what was made during its capture."""
        self.seed: int | None = None
        """The order in which replays run threads: see `Machine`."""

    def replay(self) -> None:
        """Do it all again.

        Raises:
            PtxError: a launch read memory that has been freed, or see `Machine`.
        """
        for work in self.work:
            if isinstance(work, Launch):
                work.run(self.seed)
            else:
                work()


@contextmanager
def fake_capture(driver: Driver, graph: FakeGraph) -> Iterator[None]:
    """Record what the context does: `with torch.cuda.graph(graph)`."""
    driver.recorder = graph.work  # type: ignore[assignment]
    try:
        with _Operators(graph):
            yield
    finally:
        driver.recorder = None


class _Operators(TorchDispatchMode):
    """Records torch's operators."""

    def __init__(self, graph: FakeGraph) -> None:
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if name in READS:
            raise RuntimeError(f"{name} waits for the device while a graph is captured")
        if func._schema.is_mutable:
            self.graph.work.append(lambda: func(*args, **kwargs))
            changed = [
                value
                for argument, value in zip(func._schema.arguments, args, strict=False)
                if argument.alias_info and argument.alias_info.is_write
            ]
            return changed[0] if func._schema.returns else None
        made = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)]
        self.graph.kept += outputs
        if not name.startswith(("empty", "new_empty")) and not any(
            out.alias_info for out in func._schema.returns
        ):

            def again() -> None:
                found = [
                    leaf
                    for leaf in tree_leaves(func(*args, **kwargs))
                    if isinstance(leaf, torch.Tensor)
                ]
                for output, value in zip(outputs, found, strict=True):
                    output.copy_(value)

            self.graph.work.append(again)
        return made
