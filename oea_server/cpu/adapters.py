"""LoRA adapters without a GPU: SGLang's own products in torch, of memory that nothing pins.

Seams: the name `torch` in `sglang.srt.lora.layers` and `sglang.srt.lora.backend.torch_backend`, by
which they ask for pinned memory whatever the device, and `torch.Tensor.pin_memory`. Both ask for a
CUDA driver."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

PINNING = ("sglang.srt.lora.layers", "sglang.srt.lora.backend.torch_backend")
BACKEND = "torch_native"
"""What `--lora-backend` has without kernels for a GPU."""


def install() -> None:
    """Put the stand-ins in place, before SGLang builds its adapters."""
    for name in PINNING:
        importlib.import_module(name).torch = Unpinned("torch")  # type: ignore[attr-defined]
    torch.Tensor.pin_memory = as_it_is  # type: ignore[assignment, method-assign]


def as_it_is(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
    """Memory of the host, which is the device."""
    return tensor


class Unpinned(ModuleType):
    """torch, but for tensors that are made pinned."""

    def __getattr__(self, name: str) -> Any:
        theirs = getattr(torch, name)
        return without_pinning(theirs) if name in ("tensor", "zeros", "empty") else theirs


def without_pinning(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def made(*args: Any, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
        return make(*args, **kwargs)

    return made
