"""How long prompts and answers are, in tokens."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal, Protocol

Side = Literal["prompt", "output"]

SHAREGPT_MEANS: dict[Side, float] = {"prompt": 161.31, "output": 337.99}
"""Mean tokens of ShareGPT's turns, as the vLLM paper publishes them (arXiv 2309.06180, figure
11)."""
SHAREGPT_SIGMA = 1.0
SHAREGPT_BOUNDS = (4, 1024)
"""The spread is our assumption, the bounds those that serving benchmarks cut the data set to."""
LONGEST = 131_072
SPREADS = (0.0, 3.0)


class LengthError(ValueError):
    """One line: the text, and what is wrong with it."""


class Lengths(Protocol):
    """A distribution of lengths."""

    def draw(self, dice: random.Random) -> int:
        """One length, at least 1."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same."""

    tokens: int

    def draw(self, dice: random.Random) -> int:
        return self.tokens

    def __str__(self) -> str:
        return f"fixed:{self.tokens}"


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Most are short, few are long.

    Args:
        median: in tokens.
        sigma: of the logarithm.
    """

    median: float
    sigma: float
    low: int = 1
    high: int = LONGEST

    def draw(self, dice: random.Random) -> int:
        return round(
            min(max(dice.lognormvariate(math.log(self.median), self.sigma), self.low), self.high)
        )

    def __str__(self) -> str:
        return f"lognormal:{self.median:.0f}:{self.sigma:g} within {self.low}..{self.high}"


def sharegpt(side: Side) -> LogNormal:
    """Lognormal with ShareGPT's mean (before it is cut to its bounds)."""
    median = SHAREGPT_MEANS[side] * math.exp(-(SHAREGPT_SIGMA**2) / 2)
    return LogNormal(median, SHAREGPT_SIGMA, *SHAREGPT_BOUNDS)


def parse(text: str, side: Side) -> Lengths:
    """``fixed:64``, ``lognormal:200:0.8`` (median, sigma), ``sharegpt``.

    Raises:
        LengthError: it is none of these, or out of bounds.
    """
    kind, *numbers = text.split(":")
    try:
        values = [float(each) for each in numbers]
    except ValueError:
        raise LengthError(f"{side}={text}: not numbers after {kind}") from None
    match kind, values:
        case "fixed", [tokens] if tokens == int(tokens) and 1 <= tokens <= LONGEST:
            return Fixed(int(tokens))
        case "lognormal", [median, sigma] if (
            1 <= median <= LONGEST and SPREADS[0] < sigma <= SPREADS[1]
        ):
            return LogNormal(median, sigma)
        case "sharegpt", []:
            return sharegpt(side)
    raise LengthError(
        f"{side}={text}: is none of fixed:TOKENS, lognormal:MEDIAN:SIGMA, sharegpt (tokens"
        f" 1..{LONGEST}, sigma 0..3)"
    )
