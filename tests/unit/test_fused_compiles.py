"""The fused launch compiles for the GPUs it is meant for, without one: Triton brings the assembler."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from oea_server.routing.kernel import route_kernel

capability, N, K, dtype, sigmoid, ranks, spare = sys.argv[1:]
capability, N, K, ranks, spare, sigmoid = int(capability), int(N), int(K), int(ranks), int(spare), sigmoid == "True"
columns = triton.next_power_of_2(N)
given = dict(
    N=N, K=K, WIDTH=K, SLOTS=triton.next_power_of_2(K), COLUMNS=columns, ROWS=max(4, 2048 // columns), OWN_ROWS=4,
    SIGMOID=sigmoid, RENORMALIZE=True, COUNT_ON_DEVICE=True, ALL_REAL=False, TABLE=1024, TALLIED=N + spare, RANKS=ranks,
    PLACED=spare > 0, POOL_RANKS=ranks, SLOTS_OF_RANK=(N + spare) // ranks, REPLICAS=N + spare if spare else 1,
    SPARE=spare,
)
types = dict(
    logits_ptr="*" + dtype, stride="i32", bias_ptr="*fp32", weights_ptr="*fp32", ids_ptr="*i32", pool_ptr="*i1",
    numbers_ptr="*i32", p_ptr="*fp64", draw_ptr="*i64", num_real="*i32", batch="i32", tally_ptr="*i64",
    counting_ptr="*i64", layer="i32", room_ptr="*i32", physical_ptr="*i64" if spare else "*i32", physical_stride="i32",
    home_ptr="*i32",
)
if ranks == 1:
    given |= dict(physical_ptr=None, home_ptr=None)
if not sigmoid:
    given["bias_ptr"] = None
names = route_kernel.arg_names
source = ASTSource(
    fn=route_kernel,
    signature={name: "constexpr" if name in given else types[name] for name in names},
    constexprs={(names.index(name),): value for name, value in given.items()},
)
built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4})
print(len(built.asm["cubin"]), built.metadata.shared)
"""


@pytest.mark.parametrize(
    ("capability", "num_experts", "k", "dtype", "sigmoid", "ranks", "spare"),
    [
        (90, 128, 8, "bf16", False, 1, 0),
        (90, 128, 8, "bf16", False, 8, 16),
        (90, 256, 8, "fp32", True, 64, 0),
        (80, 512, 10, "fp16", False, 1, 0),
    ],
)
def test_compiles(capability: int, num_experts: int, k: int, dtype: str, sigmoid: bool, ranks: int, spare: int) -> None:
    arguments = map(str, (capability, num_experts, k, dtype, sigmoid, ranks, spare))
    compiling = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=compiling)
    assert done.returncode == 0, done.stderr
    binary, shared_memory = map(int, done.stdout.split())
    assert binary > 0
    assert shared_memory <= 4096  # bytes; it stays in registers
