"""What the interpreter is for: threads together, and the mistakes that a GPU would not forgive."""

from __future__ import annotations

import pytest
import torch

from tests.ptx.by_hand import run
from tests.ptx.parse import PtxError

STORE = "mad.wide.s32 %d9, %r3, 4, %d0; st.global.b32 [%d9], %r9;"
REVERSE = """
    shl.b32 %r4, %r0, 2; mov.b32 %r5, smem; add.s32 %r4, %r4, %r5;
    st.shared.b32 [%r4], %r3;
    {barrier}
    sub.s32 %r6, 127, %r0; shl.b32 %r6, %r6, 2; add.s32 %r6, %r6, %r5;
    ld.shared.b32 %r9, [%r6];
"""
"""Each thread takes what its mirror image of the block has put down."""


def reversed_blocks(barrier: str, seed: int | None) -> bool:
    out = torch.zeros(3 * 128, dtype=torch.int32)
    # a branch to where it goes anyway: warps may take turns there
    body = REVERSE.format(barrier=barrier + " bra $next; $next: ") + STORE
    run(body, out, blocks=3, threads=128, shared=512, seed=seed)
    return torch.equal(out.view(3, 128), torch.arange(384, dtype=torch.int32).view(3, 128).flip(1))


@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
def test_a_barrier_puts_warps_in_order(seed: int | None) -> None:
    assert reversed_blocks("bar.sync 0;", seed)


def test_a_missing_barrier_shows_in_shuffled_order_only() -> None:
    assert reversed_blocks("", None)
    assert not any(reversed_blocks("", seed) for seed in range(4))


def test_a_barrier_that_not_all_reach() -> None:
    some = "setp.lt.s32 %p0, %r0, 32; @%p0 bra $wait; bra $over; $wait: bar.sync 0, 128; $over:"
    for seed in (None, 1):
        with pytest.raises(PtxError, match="32 threads wait for ever"):
            run(some, torch.zeros(1), threads=128, seed=seed)


def test_what_nobody_wrote_is_no_zero() -> None:
    out = torch.zeros(32, dtype=torch.int32)
    run("mov.b32 %r4, smem; ld.shared.b32 %r9, [%r4+16];" + STORE, out, shared=32)
    assert (out == 0xA5A5A5A5 - (1 << 32)).all()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("ld.global.b32 %r9, [%d0+128];", "out of bounds"),
        ("ld.global.b32 %r9, [%d0+-4];", "out of bounds"),
        ("st.global.v4.b32 [%d0+120], {%r1,%r1,%r1,%r1};", "misaligned"),
        ("ld.global.b32 %r9, [%d0+2];", "misaligned"),
        ("mov.b64 %d1, 0; ld.global.b8 %r9, [%d1];", "out of bounds"),
        (
            "mov.b32 %r4, smem; st.shared.b32 [%r4+16], %r0;",
            "out of bounds: 4 bytes at 0x10 of 16 bytes of shared",
        ),
        ("mov.b32 %r4, smem; ld.shared.b64 %d1, [%r4+4];", "misaligned"),
        ("atom.global.add.u32 %r9, [%d0+128], %r0;", "out of bounds"),
        ("frobnicate.b32 %r9, %r0;", "unknown instruction frobnicate"),
        ("add.rz.f32 %r9, %r0, %r0;", "unknown modifier .rz"),
        ("cvt.rn.tf32.f32 %r9, %r0;", "unknown modifier .tf32"),
        ("ld.const.b32 %r9, [%d0];", "unknown modifier .const"),
        ("add.s32 %r9, %r0, %undeclared;", "unknown operand %undeclared"),
        ("trap;", "trap by 32 threads"),
        (
            "setp.lt.s32 %p0, %r0, 7; @%p0 shfl.sync.idx.b32 %r9, %r0, 9, 31, -1;",
            "other threads than its mask",
        ),
        (
            "setp.lt.s32 %p0, %r0, 8; @%p0 shfl.sync.idx.b32 %r9, %r0, 9, 31, 0xff;",
            "not come to it",
        ),
    ],
    ids=lambda value: value.split(";")[-2 if value.count(";") > 1 else 0].strip()[:40],
)
def test_mistakes_end_the_run_by_name(body: str, message: str) -> None:
    with pytest.raises(PtxError, match=message):
        run(body, torch.zeros(32, dtype=torch.int32), shared=16)


def test_only_the_launch_s_tensors_can_be_touched() -> None:
    """A slice of a tensor is what was passed, not what lies around it."""
    whole = torch.zeros(64, dtype=torch.int32)
    run("mov.b32 %r9, 5;" + STORE, whole[16:48])
    assert whole.tolist() == [0] * 16 + [5] * 32 + [0] * 16
    with pytest.raises(PtxError, match="out of bounds"):
        run("mov.b32 %r9, 5;" + STORE, whole[16:47])


def warp_result(body: str) -> list[int]:
    out = torch.zeros(64, dtype=torch.int32)
    run(body + STORE, out, blocks=1, threads=64)
    assert torch.equal(out[:32], out[32:])
    return out[:32].tolist()


LANE = "and.b32 %r4, %r0, 31;"


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("shfl.sync.bfly.b32 %r9, %r4, 5, 31, -1;", [lane ^ 5 for lane in range(32)]),
        (
            "shfl.sync.up.b32 %r9, %r4, 3, 0, -1;",
            [max(lane - 3, lane if lane < 3 else 0) for lane in range(32)],
        ),
        (
            "shfl.sync.down.b32 %r9, %r4, 3, 31, -1;",
            [lane + 3 if lane < 29 else lane for lane in range(32)],
        ),
        ("shfl.sync.idx.b32 %r9, %r4, 9, 31, -1;", [9] * 32),
        # segments of 8: 0x1807 is the mask 24 above the bound 7
        ("shfl.sync.idx.b32 %r9, %r4, 1, 0x1807, -1;", [lane // 8 * 8 + 1 for lane in range(32)]),
        (
            "shfl.sync.down.b32 %r9|%p1, %r4, 1, 0x1807, -1; selp.b32 %r9, %r9, -1, %p1;",
            [-1 if lane % 8 == 7 else lane + 1 for lane in range(32)],
        ),
        ("redux.sync.add.s32 %r9, %r4, -1;", [496] * 32),
        ("redux.sync.max.s32 %r9, %r4, 0xffffffff;", [31] * 32),
        ("redux.sync.or.b32 %r9, %r4, -1;", [31] * 32),
        ("setp.gt.s32 %p0, %r4, 29; vote.sync.ballot.b32 %r9, %p0, -1;", [-(1 << 30)] * 32),
        (
            "setp.gt.s32 %p0, %r4, 29; vote.sync.any.pred %p1, %p0, -1; selp.b32 %r9, 1, 0, %p1;",
            [1] * 32,
        ),
        (
            "setp.gt.s32 %p0, %r4, 29; vote.sync.all.pred %p1, !%p0, -1; selp.b32 %r9, 1, 0, %p1;",
            [0] * 32,
        ),
        (
            "mov.b32 %r9, 0; setp.lt.s32 %p0, %r4, 4; @%p0 redux.sync.add.s32 %r9, %r4, 15;",
            [6] * 4 + [0] * 28,
        ),
        ("mov.b32 %r9, 0; elect.sync _|%p0, -1; @%p0 mov.b32 %r9, 1;", [1] + [0] * 31),
        ("mov.u32 %r9, %lanemask_lt; popc.b32 %r9, %r9;", list(range(32))),
    ],
    ids=lambda value: value.split(";")[0] if isinstance(value, str) else "",
)
def test_warps(instruction: str, expected: list[int]) -> None:
    assert warp_result(LANE + instruction) == expected


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("space", ["global", "shared"])
def test_atomics(seed: int | None, space: str) -> None:
    """A histogram by 4 warps of 2 blocks, and the value that each thread found."""
    counts, found = torch.zeros(2 * 4, dtype=torch.int64), torch.zeros(256, dtype=torch.int64)
    place = (
        "mad.wide.s32 %d3, %r1, 32, %d0; mad.wide.s32 %d4, %r5, 8, %d3; mov.b64 %d6, 1;"
        "and.b32 %r5, %r0, 3; mad.wide.s32 %d4, %r5, 8, %d3;"
    )
    if space == "global":
        body = place + "atom.global.gpu.relaxed.add.u64 %d7, [%d4], %d6;"
    else:
        body = (
            place + "shl.b32 %r6, %r5, 3; mov.b32 %r7, smem; add.s32 %r6, %r6, %r7; mov.b64 %d8,"
            " 0;setp.lt.s32 %p0, %r0, 4; @%p0 st.shared.b64 [%r6], %d8; bar.sync"
            " 0;atom.shared.add.u64 %d7, [%r6], %d6; bar.sync 0; ld.shared.b64 %d8, [%r6]; @%p0"
            " st.global.b64 [%d4], %d8;"
        )
    run(
        body + "mad.wide.s32 %d9, %r3, 8, %d1; st.global.b64 [%d9], %d7;",
        counts,
        found,
        blocks=2,
        threads=128,
        shared=32,
        seed=seed,
    )
    assert counts.tolist() == [32] * 8
    for block in found.view(2, 32, 4):
        for column in block.T:
            assert sorted(column.tolist()) == list(range(32))


def test_a_compare_and_swap_loop() -> None:
    """Threads that lose go round again while the others of their warp wait."""
    counter = torch.zeros(1, dtype=torch.int32)
    body = """
        $again: ld.global.b32 %r4, [%d0]; add.s32 %r5, %r4, 1;
        atom.global.cas.b32 %r6, [%d0], %r4, %r5; setp.ne.s32 %p0, %r6, %r4; @%p0 bra $again;
    """
    run(body, counter, blocks=2, threads=64)
    assert int(counter) == 128


@pytest.mark.parametrize("transposed", ["", ".trans"])
def test_matrices(transposed: str) -> None:
    """stmatrix and ldmatrix of two 8 x 8 matrices, against their layout in the manual."""
    out = torch.zeros(64, dtype=torch.int32)
    rows = "and.b32 %r4, %r0, 15; shl.b32 %r4, %r4, 4; mov.b32 %r5, smem; add.s32 %r4, %r4, %r5;"
    fill = "mad.lo.s32 %r6, %r0, 0x20002, 0x10000; add.s32 %r7, %r6, 0x400040;"
    store = "stmatrix.sync.aligned.m8n8.x2.shared.b16 [%r4], {%r6, %r7}; bar.warp.sync -1;"
    load = f"ldmatrix.sync.aligned.m8n8.x2{transposed}.shared.b16 {{%r8, %r9}}, [%r4];"
    write = "mad.wide.s32 %d9, %r3, 8, %d0; st.global.v2.b32 [%d9], {%r8, %r9};"
    run(rows + fill + store + load + write, out, shared=256)
    values = out.view(torch.int16).view(32, 2, 2)  # thread, matrix, half
    for matrix in range(2):
        expected = torch.arange(64, dtype=torch.int16).view(8, 8) + 64 * matrix
        seen = (expected.T if transposed else expected).reshape(32, 2)
        assert torch.equal(values[:, matrix], seen)


def test_registers_of_an_inner_block_are_its_own() -> None:
    out = torch.zeros(32, dtype=torch.int32)
    run(
        "mov.b32 %r9, 1; { .reg .b32 %r9; .reg .pred q; mov.b32 %r9, 2; setp.eq.s32 q, %r9, 2; @!q"
        " trap; }" + STORE,
        out,
    )
    assert (out == 1).all()
