"""Runs PTX that a test wrote by hand, on tensors."""

from __future__ import annotations

import torch

from tests.ptx.global_memory import GlobalMemory
from tests.ptx.launch import pointer_to
from tests.ptx.machine import Machine
from tests.ptx.parse import parse
from tests.ptx.program import program_of

REGISTERS = ".reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<20>; .reg .b64 %d<20>;"
PROLOGUE = """
    mov.u32 %r0, %tid.x;
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mad.lo.s32 %r3, %r1, %r2, %r0;
"""
"""%r0 the thread, %r3 its number in the launch; %d0, %d1 … the tensors."""


def run(
    body: str,
    *tensors: torch.Tensor,
    blocks: int = 1,
    threads: int = 32,
    shared: int = 0,
    seed: int | None = None,
) -> None:
    """Run a body on tensors, whose addresses are in %d0, %d1 and so on."""
    names = [f"p{i}" for i in range(len(tensors))]
    parameters = ", ".join(f".param .u64 {name}" for name in names)
    loads = "\n".join(f"ld.param.u64 %d{i}, [{name}];" for i, name in enumerate(names))
    text = f"""
        .extern .shared .align 16 .b8 smem[];
        .visible .entry by_hand({parameters}) {{ {REGISTERS}
        {PROLOGUE} {loads} {body}
        ret; }}
    """
    pointers = [pointer_to(name, tensor) for name, tensor in zip(names, tensors, strict=True)]
    arguments = [pointer.region.address for pointer in pointers]
    memory = GlobalMemory(pointer.region for pointer in pointers)
    Machine(program_of(parse(text)), (blocks, 1, 1), threads, arguments, memory, shared, seed).run()


def compute(
    instruction: str, kind: str, *sources: torch.Tensor, result: torch.dtype
) -> torch.Tensor:
    """One instruction on every element: `{0}` is its target, `{1}` … its sources, as bits of `b32`
    or `b64`.

    Args:
        kind: of registers: r (32 bits), d (64 bits) or h (16 bits).
        sources: [n], n a multiple of 32.
    """
    out = torch.zeros(len(sources[0]), dtype=result)
    lines, registers = [], []
    for number, source in enumerate(sources, 1):
        size = source.element_size()
        letter = {2: "h", 4: "r", 8: "d"}[size]
        register = f"%{letter}{ {'h': 1, 'r': 10, 'd': 10}[letter] + number }"
        registers.append(register)
        lines.append(
            f"mad.wide.s32 %d9, %r3, {size}, %d{number}; ld.global.b{8 * size} {register}, [%d9];"
        )
    size = out.element_size()
    target = f"%{kind}{ {'h': 1, 'r': 10, 'd': 10}[kind] }"
    lines.append(instruction.format(target, *registers) + ";")
    lines.append(f"mad.wide.s32 %d9, %r3, {size}, %d0; st.global.b{8 * size} [%d9], {target};")
    run("\n".join(lines), out, *sources, blocks=len(out) // 32)
    return out
