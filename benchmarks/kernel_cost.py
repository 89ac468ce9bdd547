"""What the routing's launch costs a layer, beside SGLang's own router, without a GPU: machine code and executed
instructions.

    .venv/bin/python benchmarks/kernel_cost.py [--json]

Both kernels are compiled by Triton's own JIT for sm_90, disassembled, and run in the tests' interpreter of PTX on
random logits in bfloat16. `executed` is what the busiest warp executes, over every launch that a layer makes. Exact,
and the same on every machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
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

SHAPES = ((16, 128, 8), (128, 128, 8), (16, 256, 8), (64, 512, 8))
"""(rows, experts, experts per token)."""
CPU = torch.device("cpu")


class Cost(NamedTuple):
    """One kernel at one shape.

    Args:
        sass: machine instructions of the kernel.
        registers: of a thread.
        membar: memory fences.
        executed: PTX instructions of the busiest warp.
    """

    kernel: str
    batch: int
    experts: int
    k: int
    sass: int
    registers: int
    membar: int
    executed: int


def ours(batch: int, experts: int, k: int) -> Any:
    """Call the routing as a layer of a default server does, which counts; returns what must stay in memory."""
    knobs, tally = Knobs({0: k}, experts, CPU), Tally([0], experts, 1, CPU)
    knobs.write(Policy.oea(default_schedule(k)))
    given, real = logits(batch, experts), torch.tensor(batch, dtype=torch.int32)
    return given, knobs, tally, real, fused.route(given, knobs, Router(k), num_real=real, layer=0, tally=tally)


def sglangs(batch: int, experts: int, k: int) -> Any:
    """SGLang's own router, with programmatic dependent launch as on sm_90."""
    import sglang.kernels.ops.moe.moe_fused_gate as gate

    gate.is_arch_support_pdl = lambda: True
    given = logits(batch, experts)
    return given, gate.moe_fused_gate(given, None, k, scoring_func="softmax", renormalize=True)


KERNELS: dict[str, Callable[[int, int, int], Any]] = {"ours": ours, "sglang": sglangs}


def cost(kernel: str, batch: int, experts: int, k: int) -> Cost:
    """Compile one, run it, and count."""
    with fake_cuda() as driver:
        driver.recorder = []
        kept = KERNELS[kernel](batch, experts, k)
        made = driver.recorder
        executed = sum(int(each.run().of_warp.max()) for each in made)
    del kept
    code = [opcode for each in made for opcode in opcodes(each.compiled.cubin)]
    fences = sum(each.startswith(("MEMBAR", "ERRBAR")) for each in code)
    most = max(registers(each.compiled.cubin) for each in made)
    return Cost(kernel, batch, experts, k, len(code), most, fences, executed)


def logits(batch: int, experts: int) -> torch.Tensor:
    return torch.randn(batch, experts, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="nothing but a list of rows on stdout")
    as_json = parser.parse_args().json
    with redirect_stdout(sys.stderr):  # SGLang says at import what it lacks here
        assert_compiling()
        rows = [cost(kernel, *shape) for shape in SHAPES for kernel in KERNELS]
    if as_json:
        print(json.dumps([row._asdict() for row in rows]))
        return
    print(
        f"{'rows':>5} {'experts':>7} {'k':>3}  {'kernel':8} {'SASS':>6} {'registers':>9} {'fences':>6} {'executed':>9}"
    )
    for our, their in zip(rows[::2], rows[1::2], strict=True):
        for row in (our, their):
            print(f"{row.batch:5} {row.experts:7} {row.k:3}  {row.kernel:8} {row.sass:6} {row.registers:9} "
                  f"{row.membar:6} {row.executed:9}")  # fmt: skip
        print(f"{'':25}executed, ours to SGLang's: {our.executed / their.executed:.2f}")


if __name__ == "__main__":
    main()
