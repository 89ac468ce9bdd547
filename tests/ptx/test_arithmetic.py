"""Instructions of the interpreter against torch, and against the PTX manual where torch differs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from tests.ptx.by_hand import compute

N = 64
INF, NAN = math.inf, math.nan


def integers(
    dtype: torch.dtype, seed: int, least: int | None = None, most: int | None = None
) -> torch.Tensor:
    limits = torch.iinfo(dtype)
    low, high = limits.min if least is None else least, limits.max if most is None else most
    return torch.randint(
        low, high, (N,), dtype=dtype, generator=torch.Generator().manual_seed(seed)
    )


def floats(*values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype).repeat(-(-N // len(values)))[:N]


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("add.s32 {0}, {1}, {2}", lambda x, y: x + y),
        ("sub.s32 {0}, {1}, {2}", lambda x, y: x - y),
        ("mul.lo.s32 {0}, {1}, {2}", lambda x, y: x * y),
        ("mul.hi.s32 {0}, {1}, {2}", lambda x, y: ((x.long() * y.long()) >> 32).int()),
        ("mad.lo.s32 {0}, {1}, {2}, {1}", lambda x, y: x * y + x),
        ("div.s32 {0}, {1}, {2}", lambda x, y: torch.div(x, y, rounding_mode="trunc")),
        ("rem.s32 {0}, {1}, {2}", torch.fmod),
        ("min.s32 {0}, {1}, {2}", torch.minimum),
        ("max.s32 {0}, {1}, {2}", torch.maximum),
        ("xor.b32 {0}, {1}, {2}", torch.bitwise_xor),
        ("not.b32 {0}, {1}", lambda x, y: ~x),
        ("neg.s32 {0}, {1}", lambda x, y: -x),
        ("shr.s32 {0}, {1}, 40", lambda x, y: x >> 31),
        ("shl.b32 {0}, {1}, 32", lambda x, y: x * 0),
        ("bfe.s32 {0}, {1}, 4, 9", lambda x, y: x << 19 >> 23),
        ("bfe.u32 {0}, {1}, 4, 9", lambda x, y: (x >> 4) & 511),
        ("bfi.b32 {0}, {1}, {2}, 8, 4", lambda x, y: (y & ~0xF00) | ((x & 15) << 8)),
        ("prmt.b32 {0}, {1}, {2}, 0x5410", lambda x, y: (x & 0xFFFF) | (y << 16)),
        ("prmt.b32 {0}, {1}, {2}, 0xBBBB", lambda x, y: x >> 31),
        ("lop3.b32 {0}, {1}, {2}, {1}, 0xC0", torch.bitwise_and),
        ("shf.l.wrap.b32 {0}, {1}, {2}, 8", lambda x, y: (y << 8) | ((x >> 24) & 255)),
        (
            "popc.b32 {0}, {1}",
            lambda x, y: torch.tensor([(int(v) & 0xFFFFFFFF).bit_count() for v in x]),
        ),
        (
            "clz.b32 {0}, {1}",
            lambda x, y: torch.tensor([32 - (int(v) & 0xFFFFFFFF).bit_length() for v in x]),
        ),
        (
            "add.s16x2 {0}, {1}, {2}",
            lambda x, y: ((x & 0xFFFF) + (y & 0xFFFF) & 0xFFFF) | ((x >> 16) + (y >> 16)) << 16,
        ),
        (
            "max.s16x2 {0}, {1}, {2}",
            lambda x, y: torch.maximum(x.view(torch.int16), y.view(torch.int16)).view(torch.int32),
        ),
        ("set.lt.s32.s32 {0}, {1}, {2}", lambda x, y: -(x < y).int()),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_integers(instruction: str, expected: Callable[..., torch.Tensor]) -> None:
    x, y = integers(torch.int32, 1), integers(torch.int32, 2)
    y[y == 0] = 3
    assert torch.equal(compute(instruction, "r", x, y, result=torch.int32), expected(x, y).int())


@pytest.mark.parametrize("sign", ["s", "u"])
def test_the_high_half_of_long_products(sign: str) -> None:
    x, y = integers(torch.int64, 3), integers(torch.int64, 4)
    found = compute(f"mul.hi.{sign}64 {{0}}, {{1}}, {{2}}", "d", x, y, result=torch.int64)
    wrap = 0 if sign == "s" else 1 << 64
    for a, b, c in zip(x.tolist(), y.tolist(), found.tolist(), strict=True):
        unsigned = [value + wrap if value < 0 else value for value in (a, b)]
        assert (c - ((unsigned[0] * unsigned[1]) >> 64)) % (1 << 64) == 0


@pytest.mark.parametrize(
    ("instruction", "result", "given", "expected"),
    [
        # the manual: NaN is 0, but 1 << 63 as a 64-bit integer; the rest is clamped
        (
            "cvt.rzi.s32.f32 {0}, {1}",
            torch.int32,
            (NAN, INF, -INF, 1.9, -1.9),
            (0, 2**31 - 1, -(2**31), 1, -1),
        ),
        (
            "cvt.rzi.s64.f32 {0}, {1}",
            torch.int64,
            (NAN, INF, -INF, -2.5),
            (-(2**63), 2**63 - 1, -(2**63), -2),
        ),
        ("cvt.rni.s32.f32 {0}, {1}", torch.int32, (0.5, 1.5, -2.5), (0, 2, -2)),
        ("cvt.rzi.u32.f32 {0}, {1}", torch.int32, (-1.0, 3.0, NAN), (0, 3, 0)),
        ("max.f32 {0}, {1}, 0f3F800000", torch.float32, (NAN, 2.0, -INF), (1.0, 2.0, 1.0)),
        ("min.f32 {0}, {1}, 0f3F800000", torch.float32, (NAN, 2.0, -INF), (1.0, 1.0, -INF)),
        ("max.NaN.f32 {0}, {1}, 0f3F800000", torch.float32, (NAN, 2.0), (NAN, 2.0)),
        ("ex2.approx.f32 {0}, {1}", torch.float32, (-INF, 0.0, 3.0, INF), (0.0, 1.0, 8.0, INF)),
        ("div.full.f32 {0}, 0f3F800000, {1}", torch.float32, (0.0, 4.0, INF), (INF, 0.25, 0.0)),
        (
            "fma.rn.f32 {0}, {1}, {1}, 0fBF800000",
            torch.float32,
            (1 + 2.0**-12, NAN),
            (2.0**-11 + 2.0**-24, NAN),
        ),
        ("add.ftz.f32 {0}, {1}, 0f00000000", torch.float32, (1e-40, 1.0), (0.0, 1.0)),
    ],
    ids=str,
)
def test_floats(
    instruction: str, result: torch.dtype, given: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    found = compute(
        instruction, "d" if result == torch.int64 else "r", floats(*given), result=result
    )
    wanted = torch.tensor(expected, dtype=result).repeat(N)[:N]
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)


def test_zero_is_above_minus_zero() -> None:
    found = compute("max.f32 {0}, {1}, 0f80000000", "r", floats(0.0, -0.0), result=torch.float32)
    assert torch.equal(found.signbit(), floats(0.0, -0.0).signbit())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lt", (1, 0, 0)),
        ("ltu", (1, 0, 1)),
        ("ne", (1, 0, 0)),
        ("neu", (1, 0, 1)),
        ("ge", (0, 1, 0)),
        ("nan", (0, 0, 1)),
        ("num", (1, 1, 0)),
    ],
)
def test_comparisons_with_nan(name: str, expected: tuple[int, ...]) -> None:
    instruction = f"setp.{name}.f32 %p0, {{1}}, 0f40000000; selp.b32 {{0}}, 1, 0, %p0"
    found = compute(instruction, "r", floats(1.0, 2.0, NAN), result=torch.int32)
    assert found[:3].tolist() == list(expected)


@pytest.mark.parametrize(("kind", "dtype"), [("bf16", torch.bfloat16), ("f16", torch.float16)])
def test_half_floats_both_ways(kind: str, dtype: torch.dtype) -> None:
    wide = torch.randn(N, generator=torch.Generator().manual_seed(5)) * 100
    wide[:3] = torch.tensor([INF, -INF, 1 + 2.0**-8])
    narrow = compute(f"cvt.rn.{kind}.f32 {{0}}, {{1}}", "h", wide, result=torch.int16).view(dtype)
    assert torch.equal(narrow, wide.to(dtype))
    assert torch.equal(
        compute(f"cvt.f32.{kind} {{0}}, {{1}}", "r", narrow, result=torch.float32), narrow.float()
    )
    twice = compute(f"add.rn.{kind} {{0}}, {{1}}, {{1}}", "h", narrow, result=torch.int16).view(
        dtype
    )
    assert torch.equal(twice, narrow + narrow)
    pair = compute(f"cvt.rn.{kind}x2.f32 {{0}}, {{1}}, 0f3F800000", "r", wide, result=torch.int32)
    assert torch.equal(pair.view(dtype)[1::2], narrow)
    assert (pair.view(dtype)[::2] == 1).all()


def test_packing_and_unpacking() -> None:
    x = integers(torch.int64, 6)
    swap = "mov.b64 {{%r10, %r11}}, {1}; mov.b64 {0}, {{%r11, %r10}}"
    assert torch.equal(
        compute(swap, "d", x, result=torch.int64),
        x.view(torch.int32).view(N, 2).flip(1).reshape(-1).view(torch.int64),
    )
