"""What `fused.route` and a `DeviceTally` compile for a GPU that is not there: Triton's own
just-in-time path on CPU tensors, so that what it specialises by is the real thing. Nothing runs.
`python -m tests.unit.compiled_launches` prints one JSON object, by case; Triton must not be in its
interpreter."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import sglang.srt.utils.common  # noqa: F401  as in a server: it replaces functions of Triton's
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import GPUDriver

from oea_server.routing import Router, fused
from oea_server.routing.count_kernel import count_kernel
from oea_server.routing.device_tally import DeviceTally
from oea_server.routing.kernel import route_kernel
from oea_server.routing.knobs import Knobs
from oea_server.routing.placement import Placement, contiguous
from oea_server.routing.pool_kernel import pool_kernel
from oea_server.routing.step_kernel import step_kernel
from oea_server.routing.tally import Tally
from tests.ptx.disassembly import opcodes

CPU = torch.device("cpu")
LAYERS = range(6)
launched: list[str] = []
"""The hash of what was compiled for each launch."""


class Compiler(GPUDriver):  # type: ignore[misc]
    """As much of a driver as a launch asks for; a device of its own for each compute capability."""

    def __init__(self, capability: int) -> None:
        self.capability = capability
        self.utils = self
        self.launcher_cls = lambda source, metadata: (
            lambda *arguments: launched.append(metadata.hash)
        )
        self.get_device_capability = lambda device: divmod(capability, 10)
        self.get_current_stream = lambda device: 0
        self.get_current_device = lambda: capability
        self.load_binary = lambda *arguments: (1, 1, 0, 0, 1024)
        self.get_device_properties = lambda device: {"max_shared_mem": 232_448}

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    @staticmethod
    def is_active() -> bool:
        return True

    def get_active_torch_device(self) -> torch.device:
        return CPU

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_benchmarker(self) -> Any:
        raise NotImplementedError


def layers_of_a_server(num_experts: int, k: int) -> dict[str, Any]:
    """One rank that counts and one that does not, over layers and batches, warmed up before."""
    knobs, real = (
        Knobs(dict.fromkeys(LAYERS, k), num_experts, CPU),
        torch.tensor(3, dtype=torch.int32),
    )
    tally = DeviceTally(LAYERS, num_experts, 1, CPU)
    tally.by_step = True
    fused.warm_up(torch.bfloat16, knobs, Router(k), num_real=real, tally=tally)
    warm = len(launched)
    for batch in (1, 5, 16, 32, 128, 2048):
        logits, ids = (
            torch.zeros(batch, num_experts, dtype=torch.bfloat16),
            torch.zeros(batch, k, dtype=torch.int32),
        )
        for layer in LAYERS:
            fused.route(logits, knobs, Router(k), num_real=real, layer=layer, tally=tally)
            tally.add_vanilla(layer, ids, real)
    return {"warm": warm, **compiled()}


def ranks_with_a_map(num_experts: int, k: int) -> dict[str, Any]:
    """Under EPLB: maps of an odd number of entries a layer, which thus lie at a multiple of 16
    bytes in every other."""
    ranks, slots = 8, num_experts // 8 + 3
    knobs, real = (
        Knobs(dict.fromkeys(LAYERS, k), num_experts, CPU),
        torch.tensor(3, dtype=torch.int32),
    )
    maps = torch.zeros(len(LAYERS), num_experts, 17, dtype=torch.int64)
    homes = [
        torch.zeros(num_experts + 1, dtype=torch.int32)[layer % 2 :][:num_experts]
        for layer in LAYERS
    ]
    places = [Placement(ranks, slots, each, home) for each, home in zip(maps, homes, strict=True)]
    tally = DeviceTally(LAYERS, ranks * slots, ranks, CPU, placed=True)
    shadow = Tally(LAYERS, ranks * slots, ranks, CPU)
    tally.by_step = shadow.by_step = True
    fused.warm_up(torch.bfloat16, knobs, Router(k), num_real=real, tally=tally, placement=places[0])
    warm = len(launched)
    logits, ids = (
        torch.zeros(4, num_experts, dtype=torch.bfloat16),
        torch.zeros(4, k, dtype=torch.int32),
    )
    for layer in LAYERS:
        for counted in (tally, shadow):
            fused.route(
                logits,
                knobs,
                Router(k),
                num_real=real,
                layer=layer,
                tally=counted,
                placement=places[layer],
            )
        tally.add_loaded_ids(layer, ids, real)
        tally.add_vanilla(layer, ids, real)
    return {"warm": warm, **compiled()}


def ranks_in_order(num_experts: int, k: int, ranks: int) -> dict[str, Any]:
    """A sigmoid router with a bias on many ranks."""
    knobs, real = Knobs({0: k}, num_experts, CPU), torch.tensor(3, dtype=torch.int32)
    fused.warm_up(
        torch.float32,
        knobs,
        Router(k, scoring="sigmoid", bias=torch.zeros(num_experts)),
        num_real=real,
        tally=DeviceTally([0], num_experts, ranks, CPU),
        placement=contiguous(num_experts, ranks, CPU),
    )
    return {"warm": len(launched), **compiled()}


def one_rank(dtype: torch.dtype, num_experts: int, k: int) -> dict[str, Any]:
    """Nothing but the routing."""
    fused.warm_up(dtype, Knobs({0: k}, num_experts, CPU), Router(k))
    return {"warm": len(launched), **compiled()}


def compiled() -> dict[str, Any]:
    """What was launched, in order, and every kernel that was compiled: its name, and what its
    machine code is like."""
    kernels = [
        {"name": each.__name__, **look(built)}
        for each in (route_kernel, pool_kernel, step_kernel, count_kernel)
        for kernels, *_ in each.device_caches.values()
        for built in kernels.values()
        if built.metadata.hash in launched
    ]
    return {"launched": [launched.index(each) for each in launched], "kernels": kernels}


def look(built: Any) -> dict[str, int]:
    """A kernel's bytes of shared memory, instructions, memory fences and atomic operations."""
    code = opcodes(built.asm["cubin"])
    return {
        "shared": built.metadata.shared,
        "instructions": len(code),
        "fences": sum(each.startswith(("MEMBAR", "ERRBAR", "CCTL")) for each in code),
        "atomics": sum(
            each.startswith(("RED", "ATOM")) and not each.startswith("REDUX") for each in code
        ),
    }


CASES: dict[str, tuple[int, Callable[[], dict[str, Any]]]] = {
    "layers": (90, lambda: layers_of_a_server(128, 8)),
    "map": (90, lambda: ranks_with_a_map(127, 8)),
    "ranks": (90, lambda: ranks_in_order(256, 8, 64)),
    "ampere": (80, lambda: one_rank(torch.float16, 512, 10)),
}


def compile_case(capability: int, case: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    launched.clear()
    triton.runtime.driver.set_active(Compiler(capability))
    return case()


if __name__ == "__main__":
    print(json.dumps({name: compile_case(*case) for name, case in CASES.items()}))
