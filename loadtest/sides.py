"""Thousands of requests to a server, or to two by turns, and what each still holds when they are
over."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from loadtest import watch
from loadtest.soak import CONCURRENCY, Soak, shares
from oea_server.client.server import Server

GREEDY = ("The import statement", "An expert is awake if", "1 2 3 4 5 6 7 8")
GREEDY_TOKENS = 64
WARM_UP = 0.2
"""Of the requests; more come on top, and only then is memory watched."""
FLAT = 1.0
"""MiB per 1000 requests and process that count as flat."""
BLOCKS = 10
"""Turns of each of two servers."""
DRAWN = 500
"""Samples that a record keeps of each server, for its picture; slopes are of all."""


class Bounds(NamedTuple):
    """How much.

    Args:
        requests: after the warm-up.
        beside: of those, how many a second server gets, without us; 0 if there is none.
    """

    requests: int
    seed: int
    beside: int = 0


def greedy(server: Server, ours: bool = True) -> list[str]:
    """Answers of fixed prompts, each alone on the server, as the model was trained to route."""
    before = server.config()["settings"]["policy"] if ours else ""
    if ours:
        server.steer(policy="vanilla")
    try:
        return [
            server.client.chat.completions.create(
                model="demo",
                messages=[{"role": "user", "content": prompt}],
                max_tokens=GREEDY_TOKENS,
                temperature=0,
                extra_body={"ignore_eos": True},
            )
            .choices[0]
            .message.content
            or ""
            for prompt in GREEDY
        ]
    finally:
        if ours:
            server.steer(policy=before)


class Side:
    """A server, what it was asked and what it held.

    Args:
        ours: whether it is one of ours, which is told to route as trained for the greedy answers.
    """

    def __init__(self, server: Server, seed: int, requests: int, ours: bool = True) -> None:
        assert server.process is not None
        self.server, self.pid, self.requests, self.ours = server, server.process.pid, requests, ours
        self.run = Soak(server.url, seed)
        self.samples: list[watch.Sample] = []
        self.seconds = 0.0

    def begin(self, warm_up: int) -> None:
        """Warm up, and look."""
        self.first = greedy(self.server, self.ours)
        self.run.play(warm_up)
        self.before = watch.held(self.server.url, self.pid)
        self.warmed, self.tokens = self.run.done, self.run.tokens

    def play(self, share: int) -> None:
        """So many requests, its memory watched."""
        start = time.perf_counter()
        with watch.Memory(self.pid, lambda: self.run.done - self.warmed) as memory:
            self.run.play(share)
        self.samples += [
            each._replace(seconds=each.seconds + self.seconds) for each in memory.samples
        ]
        self.seconds += time.perf_counter() - start

    def end(self) -> dict[str, Any]:
        """Look again."""
        tokens = self.run.tokens - self.tokens
        after = watch.held(self.server.url, self.pid)
        same = self.first == greedy(self.server, self.ours)
        slopes = _slopes(self.samples)
        missed = [
            *(f"{count} x {why}" for why, count in self.run.broken.most_common(20)),
            *([] if same else ["greedy answers differ"]),
            *watch.leaks(self.before, after),
            *(
                f"{role}: memory grows {each.per_1000:.2f} MiB per 1000 requests"
                for role, each in slopes.items()
                if each.per_1000 > FLAT
            ),
        ]
        return {
            "requests": self.requests,
            "warm_up": self.warmed,
            "seconds": self.seconds,
            "requests_per_s": self.requests / self.seconds,
            "output_tokens_per_s": tokens / self.seconds,
            "endings": dict(self.run.seen),
            "greedy_the_same": same,
            "slopes_mib_per_1000": {role: each._asdict() for role, each in slopes.items()},
            "before": self.before._asdict(),
            "after": after._asdict(),
            "missed": missed,
            "samples": [each._asdict() for each in self.samples[:: 1 + len(self.samples) // DRAWN]],
        }


def soak(server: Server, bounds: Bounds, plain: Server | None = None) -> dict[str, Any]:
    """Warm up, look, play, look again: our server, and in turn with it `plain`, which is SGLang
    without us."""
    sides = [Side(server, bounds.seed, bounds.requests)]
    if plain is not None:
        sides.append(Side(plain, bounds.seed, bounds.beside, ours=False))
    blocks = BLOCKS if plain is not None else 1
    for side in sides:
        side.begin(round(min(each.requests for each in sides) * WARM_UP))
    for block in range(blocks):
        for side in sides if block % 2 == 0 else reversed(sides):  # neither is always first
            side.play(shares(side.requests, blocks)[block])
    record = {
        "benchmark": "soak",
        "concurrency": CONCURRENCY,
        "seed": bounds.seed,
        "blocks": blocks,
        **sides[0].end(),
    }
    if plain is None:
        return record
    # memory grows fastest at first: so ours is compared over as many requests as theirs, too
    early = _slopes([each for each in sides[0].samples if each.requests <= bounds.beside])
    return {
        **record,
        "slopes_as_far_mib_per_1000": {role: each._asdict() for role, each in early.items()},
        "beside": sides[1].end(),
    }


def _slopes(samples: Sequence[watch.Sample]) -> dict[str, watch.Slope]:
    return {
        role: watch.slope([each.requests for each in samples], [each.rss[role] for each in samples])
        for role in samples[0].rss
    }
