"""When requests arrive in an open loop: by a clock, whether or not earlier ones were answered."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

FORMS = "constant:RATE, poisson:RATE, ramp:FROM:TO:SECONDS, burst:RATE:PEAK:EVERY:FOR"
MOST = 10_000.0
"""Arrivals per second."""


class Arrivals(NamedTuple):
    """A rate over time.

    Args:
        rate: arrivals per second, by seconds since the start.
        peak: the highest that it gets.
        at_random: whether they come as they do from many users that know nothing of each other
            (Poisson).
    """

    rate: Callable[[float], float]
    peak: float
    at_random: bool

    def times(self, seed: int) -> Iterator[float]:
        """Seconds since the start, without end: the same for the same seed."""
        return self._poisson(random.Random(seed)) if self.at_random else self._even()

    def _even(self) -> Iterator[float]:
        number = 0
        while True:
            yield number / self.peak
            number += 1

    def _poisson(self, dice: random.Random) -> Iterator[float]:
        """Arrivals at the peak rate, thinned to the rate of the moment."""
        now = 0.0
        while True:
            now += dice.expovariate(self.peak)
            if dice.random() * self.peak <= self.rate(now):
                yield now


def parse(text: str) -> Arrivals:
    """One of `FORMS`. Ramps and bursts arrive at random.

    Raises:
        ValueError: one line: the text and what it may be.
    """
    kind, *numbers = text.split(":")
    try:
        values = [float(each) for each in numbers]
    except ValueError:
        values = []
    if all(math.isfinite(each) for each in values):
        match kind, values:
            case "constant" | "poisson", [rate] if 0 < rate <= MOST:
                return Arrivals(lambda _: rate, rate, kind == "poisson")
            case "ramp", [low, high, seconds] if (
                0 <= low <= MOST and 0 < high <= MOST and seconds > 0
            ):
                return Arrivals(
                    lambda now: low + (high - low) * min(now / seconds, 1.0),
                    max(low, high),
                    at_random=True,
                )
            case "burst", [rate, peak, every, length] if (
                0 <= rate <= peak <= MOST and 0 < length < every and peak > 0
            ):
                return Arrivals(
                    lambda now: peak if now % every < length else rate, peak, at_random=True
                )
    raise ValueError(f"{text}: is none of {FORMS}, with rates of 0..{MOST:.0f} a second")
