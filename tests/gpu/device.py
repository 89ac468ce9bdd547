"""Where the tests of CUDA graphs run: on a GPU, or without one in the PTX interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, Protocol

import torch

from tests.ptx.driver import fake_cuda
from tests.ptx.graph import FakeGraph, fake_capture


class Graph(Protocol):
    """A captured CUDA graph."""

    def replay(self) -> None: ...


class Device(NamedTuple):
    """A GPU, or what stands for one."""

    torch_device: torch.device
    new_graph: Callable[[], Graph]
    capture: Callable[[Graph], AbstractContextManager[None]]


@contextmanager
def device() -> Iterator[Device]:
    """The GPU where there is one. Without one, CPU tensors and the PTX that Triton compiles for
    sm_90."""
    if torch.cuda.is_available():
        yield Device(torch.device("cuda"), torch.cuda.CUDAGraph, torch.cuda.graph)  # type: ignore[arg-type]
        return
    with fake_cuda() as driver:

        def capture(graph: Graph) -> AbstractContextManager[None]:
            assert isinstance(graph, FakeGraph)
            return fake_capture(driver, graph)

        yield Device(torch.device("cpu"), FakeGraph, capture)
