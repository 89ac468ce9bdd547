"""What a run came to, added up over requests, tenants and workers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

from loadtest.histogram import Histogram
from loadtest.stream import Stream

TIMES = ("ttft", "tpot", "itl", "e2e", "late")
"""Seconds. Late: how long after its time a request of an open loop was sent, because all users were
busy."""
STATISTICS = ("mean", "p50", "p95", "p99")


@dataclass(slots=True)
class Figures:
    """Add answers to it.

    Args:
        counts: answered, failed, cancelled, cut (by the end of the run), tokens, prompt_tokens.
        first: when the first answered request was sent, unix seconds; last: when the last answer
            ended.
    """

    times: dict[str, Histogram] = field(
        default_factory=lambda: {name: Histogram() for name in TIMES}
    )
    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    first: float | None = None
    last: float | None = None

    def answered(self, stream: Stream, ended: float) -> None:
        """A whole answer.

        Args:
            ended: now, in unix seconds, which workers share.
        """
        for name, seconds in (("ttft", stream.ttft), ("tpot", stream.tpot), ("e2e", stream.e2e)):
            if seconds is not None:
                self.times[name].add(seconds)
        self.times["itl"].extend(stream.gaps)
        self.counts.update(
            answered=1, tokens=stream.tokens, prompt_tokens=stream.prompt_tokens or 0
        )
        self._span(ended - (stream.e2e or 0.0), ended)

    def failed(self, why: str) -> None:
        self.counts["failed"] += 1
        self.errors[why] += 1

    def merge(self, other: Figures) -> None:
        for name, histogram in other.times.items():
            self.times[name].merge(histogram)
        self.counts.update(other.counts)
        self.errors.update(other.errors)
        if other.first is not None and other.last is not None:
            self._span(other.first, other.last)

    def _span(self, first: float, last: float) -> None:
        self.first = first if self.first is None else min(self.first, first)
        self.last = last if self.last is None else max(self.last, last)

    @property
    def seconds(self) -> float:
        """From the first request to the end of the last answer."""
        return 0.0 if self.first is None or self.last is None else self.last - self.first

    def value(self, name: str, statistic: str) -> float | None:
        """Such as ("ttft", "p95"): seconds; None without values."""
        histogram = self.times[name]
        return (
            histogram.mean if statistic == "mean" else histogram.quantile(int(statistic[1:]) / 100)
        )

    @property
    def failure_ratio(self) -> float | None:
        """Of requests that were not given up by their client; None if there were none."""
        ended = self.counts["answered"] + self.counts["failed"]
        return self.counts["failed"] / ended if ended else None

    def summary(self) -> dict[str, Any]:
        """As JSON: seconds, and per second."""
        seconds = self.seconds
        return {
            "counts": {
                name: self.counts[name] for name in ("answered", "failed", "cancelled", "cut")
            },
            "failure_ratio": self.failure_ratio,
            "errors": dict(self.errors.most_common(20)),
            "seconds": seconds,
            "requests_per_s": self.counts["answered"] / seconds if seconds else None,
            "output_tokens": self.counts["tokens"],
            "output_tokens_per_s": self.counts["tokens"] / seconds if seconds else None,
            "prompt_tokens": self.counts["prompt_tokens"],
            **{
                f"{name}_s": (
                    {each: self.value(name, each) for each in STATISTICS}
                    | {"n": self.times[name].number}
                )
                for name in TIMES
            },
        }

    def packed(self) -> dict[str, Any]:
        """For the way from a worker to its master."""
        return {
            "times": {name: histogram.packed() for name, histogram in self.times.items()},
            "counts": dict(self.counts),
            "errors": dict(self.errors),
            "first": self.first,
            "last": self.last,
        }

    @classmethod
    def unpacked(cls, data: dict[str, Any]) -> Self:
        return cls(
            {name: Histogram.unpacked(each) for name, each in data["times"].items()},
            Counter(data["counts"]),
            Counter(data["errors"]),
            data["first"],
            data["last"],
        )
