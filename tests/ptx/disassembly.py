"""What a compiled kernel is in machine code."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import triton

TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
OPCODE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", re.MULTILINE)
REGISTERS = re.compile(r"REG:(\d+)")


def opcodes(cubin: bytes) -> list[str]:
    """The instructions of all its kernels, without those that only fill up."""
    return [each for each in OPCODE.findall(_shown(cubin, "-sass")) if each != "NOP"]


def registers(cubin: bytes) -> int:
    """Of a thread, the most of its kernels."""
    return max(int(each) for each in REGISTERS.findall(_shown(cubin, "-res-usage")))


def _shown(cubin: bytes, what: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run(
            [TOOL, what, file.name], capture_output=True, text=True, check=True
        ).stdout
