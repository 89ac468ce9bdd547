"""Floating-point arithmetic. Approximate instructions are numpy's own, which are closer than a
GPU's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.ptx.decode import Decoder, handles, only
from tests.ptx.lanes import Step
from tests.ptx.parse import Statement
from tests.ptx.values import Array


def fused(x: Array, y: Array, z: Array) -> Array:
    """x y + z, rounded once (float64's last bit may differ)."""
    wide = np.float64 if x.dtype == np.float32 else np.longdouble
    return np.asarray(x.astype(wide) * y.astype(wide) + z.astype(wide), x.dtype)


def _extreme(pick: Callable[..., Array], zeros: Callable[..., Array]) -> Callable[..., Array]:
    def function(x: Array, y: Array) -> Array:
        picked = pick(x, y)
        bits = np.dtype(f"u{x.dtype.itemsize}")
        same = zeros(np.ascontiguousarray(x).view(bits), np.ascontiguousarray(y).view(bits)).view(
            x.dtype
        )
        return np.where(x == y, same, picked)  # 0.0 is above -0.0

    return function


least = _extreme(np.fmin, np.bitwise_or)
most = _extreme(np.fmax, np.bitwise_and)
least_or_nan = _extreme(np.minimum, np.bitwise_or)
most_or_nan = _extreme(np.maximum, np.bitwise_and)

OPERATIONS: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "mad": fused,
    "div": np.divide,
    "abs": np.abs,
    "neg": np.negative,
    "fma": fused,
    "rcp": np.reciprocal,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: np.reciprocal(np.sqrt(x)),
    "ex2": np.exp2,
    "lg2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "copysign": lambda sign, value: np.copysign(value, sign),
}


def flushed(function: Callable[..., Array]) -> Callable[..., Array]:
    """With .ftz: numbers too small to be normal are zeros of their sign, before and after."""

    def flush(x: Array) -> Array:
        return np.where(np.abs(x) < np.finfo(x.dtype).tiny, np.copysign(x.dtype.type(0), x), x)

    return lambda *sources: flush(function(*map(flush, sources)))


def saturated(function: Callable[..., Array]) -> Callable[..., Array]:
    """With .sat: within 0 and 1; NaN is 0."""
    return lambda *sources: np.fmin(np.fmax(function(*sources), 0), 1)


@handles("fma", "rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh", "copysign")
def arithmetic(decoder: Decoder, statement: Statement) -> Step:
    """Also called for the opcodes that integers have too."""
    only(statement, "rn", "ftz", "sat", "approx", "full", "NaN")
    if statement.opcode in ("min", "max"):
        with_nan = "NaN" in statement.modifiers
        lower, upper = (least_or_nan, most_or_nan) if with_nan else (least, most)
        function = lower if statement.opcode == "min" else upper
    else:
        function = OPERATIONS[statement.opcode]
    if "ftz" in statement.modifiers:
        function = flushed(function)
    if "sat" in statement.modifiers:
        function = saturated(function)
    return decoder.elementwise(statement, function, statement.modifiers[-1])


@handles("testp")
def property_of(decoder: Decoder, statement: Statement) -> Step:
    only(statement, "finite", "infinite", "number", "notanumber")
    tests: dict[str, Callable[..., Array]] = {
        "finite": np.isfinite,
        "infinite": np.isinf,
        "number": lambda x: ~np.isnan(x),
        "notanumber": np.isnan,
    }
    target, x = statement.operands
    return decoder.pure(
        tests[statement.modifiers[0]], target, "pred", [(x, statement.modifiers[-1])]
    )
