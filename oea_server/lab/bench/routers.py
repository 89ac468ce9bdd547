"""Ours and the others', by one signature; whoever is missing says why."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import torch

from oea_server.lab.bench import sglang_kernels
from oea_server.lab.bench.sglang_kernels import Router
from oea_server.routing import Policy, Routing, fused
from oea_server.routing import Router as Rule
from oea_server.routing.device_tally import DeviceTally
from oea_server.routing.fastest import way
from oea_server.routing.knobs import Knobs
from oea_server.routing.tally import tally_on

Route = Callable[[torch.Tensor], Routing]

ON_GPU: dict[str, Callable[[int], Router]] = {
    "sglang-triton": sglang_kernels.triton_router,
    "sglang-compiled": sglang_kernels.compiled_router,
    "flashinfer": sglang_kernels.flashinfer_router,
    "torch": sglang_kernels.torch_router,
}
ON_CPU: dict[str, Callable[[int], Router]] = {
    "sglang-native": sglang_kernels.native_router,
    "torch": sglang_kernels.torch_router,
}
LAYERS = 16
"""Of a step on a GPU: a launch that counts them all comes after the last."""
NEEDS_GPU = "a CUDA kernel; there is no GPU here"


def ours(
    policy: Policy, *, k: int, batch: int, num_experts: int, ranks: int, device: torch.device
) -> tuple[str, Route]:
    """Our routing with its tally: (name of the implementation, how to call it)."""
    tally = tally_on(device, [0], num_experts, ranks, placed=False)
    name, route, _ = way(device, batch, num_experts, policy.width(k))
    rule = Rule(k)
    return name, lambda logits: route(logits, policy, rule, tally=tally)


def by_layer(policy: Policy, k: int, logits: torch.Tensor) -> Route:
    """Our routing on a GPU as a server launches it: one layer after the other, counted in one
    launch after the last. Knobs and the number of tokens are read on the device. Its `pool` is
    there only then."""
    (batch, num_experts), device, layers = logits.shape, logits.device, range(LAYERS)
    knobs = Knobs(dict.fromkeys(layers, k), num_experts, device)
    knobs.write(policy)
    tally = DeviceTally(layers, num_experts, 1, device)
    tally.by_step = True
    real = torch.tensor(batch, dtype=torch.int32, device=device)
    turn, rule = itertools.cycle(layers), Rule(k)
    return lambda given: fused.route(
        given, knobs, rule, num_real=real, layer=next(turn), tally=tally
    )


def others(k: int, logits: torch.Tensor) -> tuple[dict[str, Router], dict[str, str]]:
    """The routers that work here, tried once on logits [B, N]; and why the rest does not.

    Returns:
        (name -> router, name -> why not), the first in the order in which they make a reference.
    """
    known = ON_GPU if logits.device.type == "cuda" else ON_CPU
    missing = dict.fromkeys(ON_GPU.keys() - known.keys(), NEEDS_GPU)
    working: dict[str, Router] = {}
    for name, make in known.items():
        try:
            with warnings.catch_warnings():
                # SGLang says at import what it lacks on this device
                warnings.simplefilter("ignore")
                router = make(k)
            router(logits)
        except Exception as error:  # whatever an optional library raises is the reason
            missing[name] = (
                f"{_one_line(error)} (batch {logits.shape[0]}, {logits.shape[1]} experts)"
            )
        else:
            working[name] = router
    return working, missing


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"


def same_choice(ids: torch.Tensor, expected: torch.Tensor) -> float:
    """Share of rows in which both choose the same experts, in any order. Both [B, k]."""
    mine: Any = ids.long().sort(dim=-1).values
    return float((mine == expected.long().sort(dim=-1).values).all(dim=-1).float().mean())
