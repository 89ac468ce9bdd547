"""torch answers as if a card were here: only to questions, and never to work.

SGLang reads what machine it is on through `torch.cuda`, and its modules keep the answer when they
are imported: so the whole process pretends, from before SGLang is imported until it ends. Anything
that would run on the card still ends in torch's own error that there is no driver."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from oea_server.absent import question
from oea_server.absent.cards import Card

OWN_CPU = ("SGLANG_USE_CPU_ENGINE", "SGLANG_PLATFORM")
"""What would have SGLang serve on another device than it finds."""


class Work:
    """A stream or an event that nothing is queued on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def pretend(card: Card) -> None:
    """Make this process believe in a machine full of these cards, for good. Before SGLang is
    imported."""
    assert "sglang" not in sys.modules, "SGLang's modules have already asked for the device"
    question.go_offline()
    for name in OWN_CPU:
        os.environ.pop(name, None)
    memory = card.memory << 20
    properties = SimpleNamespace(
        name=card.name,
        major=card.capability[0],
        minor=card.capability[1],
        total_memory=memory,
        multi_processor_count=card.processors,
        is_integrated=0,
        warp_size=32,
    )
    answers = {
        "is_available": True,
        "is_initialized": False,
        "device_count": card.in_one,
        "current_device": 0,
        "get_device_name": card.name,
        "get_device_capability": card.capability,
        "get_device_properties": properties,
        "mem_get_info": (memory, memory),
        "get_arch_list": [f"sm_{card.sm}"],
        "set_device": None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, _answer=answer, **__: _answer)
    for name in ("Stream", "Event"):
        setattr(torch.cuda, name, Work)
    without_driver()
    ask_no_driver(card)


def without_driver() -> None:
    """Let `sgl_kernel` be imported: its Python names the kernels, its libraries want libcuda.so.1,
    of the driver.

    Only what loads those libraries is left out. A kernel that is called is still missing.
    """
    loading: Any = ModuleType("sgl_kernel.load_utils")
    loading._load_architecture_specific_ops = lambda: ModuleType("common_ops")
    loading._preload_cuda_library = lambda: None
    sys.modules[loading.__name__] = loading


def ask_no_driver(card: Card) -> None:
    """Answer what SGLang asks nvidia-smi and NVML, which know the cards that are really here."""
    from sglang.srt.utils import common

    said = {
        "get_nvgpu_memory_capacity": card.memory,
        "_get_device_sm_via_nvml": card.sm,
        "get_device_sm_nvidia_smi": card.capability,
    }
    for name, answer in said.items():
        assert hasattr(common, name), name
        setattr(common, name, lambda *_, _answer=answer, **__: _answer)
    with contextlib.suppress(ImportError):
        deep_gemm: Any = importlib.import_module("deep_gemm")
        deep_gemm.get_num_sms = lambda: card.processors  # its own asks cuBLAS, which has no device


class OnMeta(TorchFunctionMode):
    """Tensors for a GPU have shapes and no memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.cuda:
            return args[0].to("meta")
        if func is torch.device:  # a name, which may be asked for; no tensor yet
            return func(*args, **(kwargs or {}))
        args = tuple(
            _off_gpu(each) if isinstance(each, str | torch.device) else each for each in args
        )
        kwargs = {
            name: _off_gpu(each) if name == "device" else each
            for name, each in (kwargs or {}).items()
        }
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False  # which asks for the driver
        return func(*args, **kwargs)


def _off_gpu(device: Any) -> Any:
    """A device, or "meta" for a GPU; a number is a GPU's. Other texts are left as they are."""
    on_gpu = type(device) is int or str(device).partition(":")[0] == "cuda"
    return torch.device("meta") if on_gpu else device
