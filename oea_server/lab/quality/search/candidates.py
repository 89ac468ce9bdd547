"""What is searched: the server's own knobs, few values of each, and which rules lie next to each
other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from math import ceil
from typing import Any, NamedTuple

from oea_server.lab.quality import serving
from oea_server.lab.quality.arms import Arm
from oea_server.routing.policy import Policy, Pool

MIXES = (1.0, 0.7, 0.5, 0.3)
SHARES = (0.0, 0.4, 0.64, 0.8, 1.04, 1.28, 1.6, 2.0)
"""Of what each of a token's own top k holds on average: at k = 8 shares of 0.05 to 0.25."""
BUDGETS = (1 / 8, 1 / 4, 3 / 8, 1 / 2)
"""Of the experts of a rank, what a budget lets a step read."""
MOST_K0S = 8
"""Values of k0: all where the model's top k is no more than that."""


class Candidate(NamedTuple):
    """One rule at one batch size."""

    k0: int
    share: float = 0.0
    mix: float = 1.0
    pool: Pool = "union"
    rank_budget: int | None = None

    @property
    def label(self) -> str:
        """As `oea-server config set` takes it, without what is off: ``k0=8 share=0.13 mix=0.5``."""
        off = Candidate(0)
        return " ".join(
            f"{name}={_shown(value)}"
            for name, value in self._asdict().items()
            if value != getattr(off, name)
        )

    @property
    def fixed(self) -> tuple[Pool, int | None]:
        """What cannot follow the batch, and so is one for a whole schedule."""
        return self.pool, self.rank_budget

    def arm(self, ranks: int) -> Arm:
        """The candidate for `quality.measure`, routed by what serves."""
        widened: dict[str, Any] = {
            "pool": self.pool,
            "ranks": ranks,
            "rank_budget": self.rank_budget,
        }
        policy = Policy.oea(self.k0, share=self.share, mix=self.mix, **widened)
        return Arm(self.label, "oea", policy, lambda found: partial(_serve, policy, found))


class Space(NamedTuple):
    """All that may be measured.

    Args:
        base: vanilla, which is one of them: the floor is the whole top k.
        all: base is the first.
        start: every second value of each knob.
        next_to: those that are one value of one knob away.
    """

    base: Candidate
    all: Sequence[Candidate]
    start: Sequence[Candidate]
    next_to: dict[Candidate, list[Candidate]]


def space(k: int, num_experts: int, ranks: int = 1, renormalize: bool = True) -> Space:
    """The rules for a model of `num_experts` experts, `k` per token, over `ranks` equal parts.

    Raises:
        ValueError: there is nothing to choose: one expert per token, or the experts do not divide
        over the ranks.
    """
    if k < 2:
        raise ValueError(f"this model's tokens take {k} expert each: no rule reads less")
    if num_experts % ranks:
        raise ValueError(
            f"--ranks={ranks}: the model's {num_experts} experts do not divide over them"
        )
    k0s = sorted({1 + round(i * (k - 1) / (min(k, MOST_K0S) - 1)) for i in range(min(k, MOST_K0S))})
    shares = [0.0, *(share for each in SHARES[1:] if (share := round(each / k, 3)) < 1)]
    mixes = MIXES if renormalize else (1.0,)
    fixed: list[tuple[Pool, int | None]] = [("union", None)]
    if ranks > 1:
        fixed.append(("fill", None))  # on one rank it is the union
    fixed += [
        ("budget", size)
        for size in sorted({max(1, round(num_experts // ranks * each)) for each in BUDGETS})
    ]
    base = Candidate(k)
    every = [base]
    for pool, budget in fixed:
        for share in shares:
            for k0 in k0s:
                if _means_something(k0, share, pool, k):
                    every += [Candidate(k0, share, mix, pool, budget) for mix in mixes]
    axes: list[tuple[str, Sequence[Any]]] = [("k0", k0s[::-1]), ("share", shares), ("mix", mixes)]
    start = [
        each
        for each in every
        if all(values.index(getattr(each, name)) % 2 == 0 for name, values in axes)
        and (each.pool != "budget" or fixed.index(each.fixed) % 2 == 0)
    ]
    return Space(base, every, list(dict.fromkeys([base, *start])), _next_to(every, fixed))


def _means_something(k0: int, share: float, pool: Pool, k: int) -> bool:
    """Whether no other floor is the same, and a pool has something to add to it."""
    if share:
        most = ceil(1 / share) - 1  # experts that can each hold more than the share
        if k0 == 1 or most <= k0 < k:
            return False
    elif k0 == k:
        return False  # vanilla
    # a budget widens the pool up to a number: of use where floors alone stay below it
    return pool != "budget" or (
        k0 <= 2 if not share else k0 == k and share * k >= SHARES[-2] - 0.01
    )


def _next_to(
    every: Sequence[Candidate], fixed: Sequence[tuple[Pool, int | None]]
) -> dict[Candidate, list[Candidate]]:
    found: dict[Candidate, list[Candidate]] = {each: [] for each in every}
    keys: list[Callable[[Candidate], Any]] = [
        *(lambda each, name=name: getattr(each, name) for name in ("k0", "share", "mix")),  # type: ignore[misc]
        lambda each: fixed.index(each.fixed),
    ]
    for at, key in enumerate(keys):
        lines: dict[Any, list[Candidate]] = defaultdict(list)
        for each in every:
            lines[tuple(other(each) for i, other in enumerate(keys) if i != at)].append(each)
        for line in lines.values():
            for a, b in pairwise(sorted(line, key=key)):
                found[a].append(b)
                found[b].append(a)
    return found


def _serve(policy: Policy, found: Any, logits: Any, layer: int) -> serving.Routed:
    return serving.route(logits, policy, found, layer)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
