"""What the routing costs a layer, beside SGLang's own router, without a GPU: machine code and
executed instructions.

    .venv/bin/python benchmarks/kernel_cost.py [--json]

Both are compiled by Triton's own JIT for sm_90, disassembled, and run in the tests' interpreter of
PTX on random logits in bfloat16. Exact, and the same on every machine.

`sass` and `registers` are those of the launches that a layer makes. `executed` is what the busiest
warp of each of them executes, and the share that a layer has of the launch that counts a step of
all layers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from oea_server.routing import Policy, Router, default_schedule, fused
from oea_server.routing.knobs import Knobs
from oea_server.routing.tally import Tally
from tests.ptx.compiling import assert_compiling
from tests.ptx.disassembly import opcodes, registers
from tests.ptx.driver import fake_cuda
from tests.ptx.launch import Launch

SHAPES = (
    (16, 128, 8),
    (32, 128, 8),
    (128, 128, 8),
    (16, 256, 8),
    (64, 512, 8),
    (512, 128, 8),
    (2048, 128, 8),
)
"""(rows, experts, experts per token)."""
LAYERS = 48
"""Qwen3-30B's."""
CPU = torch.device("cpu")


class Cost(NamedTuple):
    """One kernel at one shape.

    Args:
        sass: machine instructions of a layer's launches.
        registers: of a thread.
        membar: memory fences.
        executed: PTX instructions of the busiest warp of each launch.
        spilled: machine instructions that move registers to memory and back.
    """

    kernel: str
    batch: int
    experts: int
    k: int
    sass: int
    registers: int
    membar: int
    executed: int
    spilled: int


class Ran(list[tuple[Launch, int]]):
    """Launches and what the busiest warp of each has executed."""

    def append(self, made: Any) -> None:
        super().append((made, int(made.run().of_warp.max())))


def ours(batch: int, experts: int, k: int, driver: Any) -> tuple[Ran, int]:
    """The launches of one layer as a default server makes them, and what the one of all layers
    executes."""
    knobs, tally = (
        Knobs(dict.fromkeys(range(LAYERS), k), experts, CPU),
        Tally(range(LAYERS), experts, 1, CPU),
    )
    knobs.write(Policy.oea(default_schedule(k)))
    tally.by_step = True
    given, real = logits(batch, experts), torch.tensor(batch, dtype=torch.int32)
    layer = driver.recorder = Ran()
    asked = torch.zeros(batch, dtype=torch.int64)  # as a server has them, whose requests may wish
    fused.route(given, knobs, Router(k), num_real=real, layer=0, tally=tally, row_k0=asked)
    last = driver.recorder = Ran()
    fused.route(given, knobs, Router(k), num_real=real, layer=LAYERS - 1, tally=tally, row_k0=asked)
    return layer, last[-1][1]


def sglangs(batch: int, experts: int, k: int, driver: Any) -> tuple[Ran, int]:
    """SGLang's own router, with programmatic dependent launch as on sm_90."""
    import sglang.kernels.ops.moe.moe_fused_gate as gate

    gate.is_arch_support_pdl = lambda: True
    made = driver.recorder = Ran()
    gate.moe_fused_gate(logits(batch, experts), None, k, scoring_func="softmax", renormalize=True)
    return made, 0


KERNELS: dict[str, Callable[[int, int, int, Any], tuple[Ran, int]]] = {
    "ours": ours,
    "sglang": sglangs,
}


def cost(kernel: str, batch: int, experts: int, k: int) -> Cost:
    """Compile one, run it, and count."""
    with fake_cuda() as driver:
        made, counting = KERNELS[kernel](batch, experts, k, driver)
    executed = sum(warp for _, warp in made) + ceil(counting / LAYERS)
    code = [opcode for each, _ in made for opcode in opcodes(each.compiled.cubin)]
    fences = sum(each.startswith(("MEMBAR", "ERRBAR")) for each in code)
    most = max(registers(each.compiled.cubin) for each, _ in made)
    spilled = sum(each.startswith(("STL", "LDL")) for each in code)
    return Cost(kernel, batch, experts, k, len(code), most, fences, executed, spilled)


def logits(batch: int, experts: int) -> torch.Tensor:
    return torch.randn(batch, experts, generator=torch.Generator().manual_seed(0)).to(
        torch.bfloat16
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="nothing but a list of rows on stdout")
    as_json = parser.parse_args().json
    with redirect_stdout(sys.stderr):  # SGLang says at import what it lacks here
        assert_compiling()
        rows = [cost(kernel, *shape) for shape in SHAPES for kernel in KERNELS]
    if as_json:
        print(
            json.dumps(
                [
                    {key: value for key, value in row._asdict().items() if key != "spilled"}
                    for row in rows
                ]
            )
        )
        return
    print(
        f"{'rows':>5} {'experts':>7} {'k':>3}  {'kernel':8} {'SASS':>6} {'registers':>9}"
        f" {'fences':>6} {'executed':>9}"
    )
    for our, their in zip(rows[::2], rows[1::2], strict=True):
        for row in (our, their):
            print(
                f"{row.batch:5} {row.experts:7} {row.k:3}  {row.kernel:8} {row.sass:6}"
                f" {row.registers:9} {row.membar:6} {row.executed:9}"
            )
        print(f"{'':25}executed, ours to SGLang's: {our.executed / their.executed:.2f}")


if __name__ == "__main__":
    main()
