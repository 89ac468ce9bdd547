"""What a routing policy is: a floor, a pool and a fill, written down as a few numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, NamedTuple

from oea_server.routing.schedule import MIX, SHARE, Schedule, check, number_or_schedule

Name = Literal["vanilla", "random", "pruned", "oea"]
Pool = Literal["union", "fill", "budget"]
POOLS: tuple[Pool, ...] = ("union", "fill", "budget")
"""What a step may load. `union`: the union of the floors. `fill`: also the most wanted experts
beside it on each expert-parallel rank, up to as many as the busiest rank has, which costs nothing.
`budget`: up to a budget, floors or not."""

EXACT = 1 << 15
"""What a row asks for that is to be routed as by vanilla, whatever the router's k: it is above
any."""


UNBOUNDED = 1 << 20
"""More experts than any model has."""


class Numbers(NamedTuple):
    """The policy at one batch size in one layer. Every deterministic policy is these: vanilla is
    ``(k, k, N)``, pruning ``(k0, k0, N)``, OEA ``(k0, k_max, max_rank, draft_k0, p, share, mix)``.
    """

    floor: int
    """Experts each token is guaranteed (phase 1 of the paper)."""
    limit: int
    """Experts a token holds at most after the fill."""
    reach: int
    """Places of its own preference that a token scans for experts of the pool."""
    draft_floor: int = UNBOUNDED
    """Experts each draft is guaranteed, where `floor` is more."""
    p: float = 1.0
    """Router mass, of all experts, at which a floor ends."""
    share: float = 0.0
    """Of the mass of its own top k, what each expert of a floor holds more than, but for the
    first."""
    mix: float = 1.0
    """Weights are divided by `mix` times the mass of the chosen and (1 - mix) times that of the
    token's own top k."""


class Room(NamedTuple):
    """How far a pool may be widened, on every rank alike."""

    kind: int
    """Index of the pool's name in `POOLS`."""
    budget: int
    """Experts a rank may hold, of `budget` only."""


UNION = Room(POOLS.index("union"), 0)


@dataclass(frozen=True, slots=True)
class Policy:
    """One way to choose experts for a decode step. Build it with one of the four constructors.

    Sources: arXiv 2511.02237, section 3 (simplified OEA: `oea(k0)`; general OEA: the rest).
    """

    name: Name
    k0: Schedule[int] | None = None
    p: float = 1.0
    k_max: int | None = None
    max_rank: int | None = None
    min_batch: int = 1
    seed: int = 0
    pool: Pool = "union"
    ranks: int = 1
    rank_budget: int | None = None
    share: float | Schedule[float] | None = None
    mix: float | Schedule[float] = 1.0
    draft_k0: int | None = None
    _hash: int = field(init=False, repr=False, compare=False)
    """Computed once: tables are looked up by policy in every layer of every step."""

    @classmethod
    def vanilla(cls) -> Policy:
        """The model's own top k."""
        return cls("vanilla")

    @classmethod
    def random(cls, seed: int) -> Policy:
        """k experts per token, uniformly at random: the upper line of every latency plot. The draw
        depends only on (seed, layer, row, logits), so all ranks draw the same."""
        return cls("random", seed=seed)

    @classmethod
    def pruned(cls, k0: int | str | Mapping[int, int] | Schedule[int]) -> Policy:
        """Phase 1 alone: each token keeps its top k0 and nothing else. For comparison only."""
        return cls("pruned", k0=Schedule.of(k0))

    @classmethod
    def oea(
        cls,
        k0: int | str | Mapping[int, int] | Schedule[int],
        p: float = 1.0,
        k_max: int | None = None,
        max_rank: int | None = None,
        min_batch: int = 2,
        pool: Pool = "union",
        ranks: int = 1,
        rank_budget: int | None = None,
        share: float | str | Mapping[int, float] | Schedule[float] | None = None,
        mix: float | str | Mapping[int, float] | Schedule[float] = 1.0,
        draft_k0: int | None = None,
    ) -> Policy:
        """Opportunistic expert activation.

        Args:
            k0: guaranteed experts per token: a number or a schedule (`Schedule.of`).
            p: guarantee only as many of them as reach this router mass; 1 guarantees all k0.
            k_max: experts per token after the fill; None means the model's k.
            max_rank: how far down its own ranking a token looks for experts that are awake; None
                means all of them.
            min_batch: steps of fewer requests run vanilla: with nobody to share with, OEA would be
                pruning; 1 lets a lone one be routed.
            pool: what the step loads: see `POOLS`. On one rank, `fill` is `union`. A server asks
                for `fill` where nothing is said; here the pool is the paper's.
            ranks: expert-parallel ranks with equal, contiguous shares of the experts; a `Placement`
                says otherwise.
            rank_budget: of `budget`: experts per rank, which floors alone may exceed; on one rank a
                bound on T.
            share: guarantee only those of them that hold more than this share of the mass of the
                token's own top k, the first always; None and 0 guarantee all k0. A number or a
                schedule, as k0; 0 below its first step.
            mix: 1 divides the weights by the mass of the chosen experts, 0 by that of the token's
                own top k, between them by a mixture. A number or a schedule; 1 below its first
                step. Without effect where the model does not renormalize.
            draft_k0: guaranteed experts per draft to be verified, where k0 is more; None means k0.
                Steps of fewer requests than `min_batch` run vanilla all the same.

        Raises:
            ValueError: a knob is out of bounds; the message names it, its value and the bounds.
        """
        held = None if share is None else number_or_schedule(share, SHARE) or None
        mixed = number_or_schedule(mix, MIX)
        placed = pool, ranks, rank_budget
        return cls(
            "oea", Schedule.of(k0), p, k_max, max_rank, min_batch, 0, *placed, held, mixed, draft_k0
        )

    def __post_init__(self) -> None:
        knobs = tuple(getattr(self, each.name) for each in fields(self) if each.compare)
        object.__setattr__(self, "_hash", hash(knobs))
        if not 0.0 < self.p <= 1.0:
            raise ValueError(f"p={self.p} is outside 0 < p <= 1")
        for value, knob in ((self.share, SHARE), (self.mix, MIX)):
            if isinstance(value, int | float):
                check(value, knob)
        if self.min_batch < 1:
            raise ValueError(f"min_batch={self.min_batch} is below 1")
        if self.pool not in POOLS:
            raise ValueError(f"pool={self.pool} is none of {', '.join(POOLS)}")
        if self.ranks < 1:
            raise ValueError(f"ranks={self.ranks} is below 1")
        if self.pool == "budget" and self.rank_budget is None:
            raise ValueError(
                "rank_budget=None: pool=budget needs a number of experts per rank; give rank_budget"
            )
        if self.rank_budget is not None and self.rank_budget < 1:
            raise ValueError(f"rank_budget={self.rank_budget} is below 1")
        if self.draft_k0 is not None and self.draft_k0 < 1:
            raise ValueError(f"draft_k0={self.draft_k0} is below 1")
        if self.k0 is None:
            return
        for name, value in (("k_max", self.k_max), ("max_rank", self.max_rank)):
            if value is not None and value < max(self.k0.values):
                raise ValueError(
                    f"{name}={value} is below k0={max(self.k0.values)}, which every token is"
                    f" guaranteed; raise {name}, or lower k0"
                )

    def __hash__(self) -> int:
        return self._hash

    def check(
        self, *, k: int, num_experts: int, k_max_bound: int | None = None, renormalize: bool = True
    ) -> None:
        """Check the knobs against a model with `num_experts` experts of which each token takes `k`.

        Args:
            k_max_bound: the most experts per token the caller can carry; None for no bound.
            renormalize: False refuses a mixture, which does nothing where weights are not divided
                by their sum.

        Raises:
            ValueError: a knob asks for more than the model has.
        """
        if self.k0 is not None and max(self.k0.values) > k:
            raise ValueError(
                f"k0={self.k0} guarantees {max(self.k0.values)} experts, above the model's"
                f" top-k {k}"
            )
        if self.draft_k0 is not None and self.draft_k0 > k:
            raise ValueError(f"draft_k0={self.draft_k0} is above the model's top-k {k}")
        bound = num_experts if k_max_bound is None else k_max_bound
        if self.k_max is not None and self.k_max > bound:
            raise ValueError(
                f"k_max={self.k_max} is above {bound}, the most experts that a token can get"
            )
        if self.max_rank is not None and self.max_rank > num_experts:
            raise ValueError(f"max_rank={self.max_rank} is above the model's {num_experts} experts")
        if self.rank_budget is not None and self.rank_budget > num_experts:
            raise ValueError(
                f"rank_budget={self.rank_budget} is above the model's {num_experts} experts"
            )
        if self.mix != 1.0 and not renormalize:
            raise ValueError(
                f"mix={self.mix} has no effect: this model does not divide weights by their sum; 1"
                " is off"
            )
        if num_experts % self.ranks:
            raise ValueError(f"ranks={self.ranks}: {num_experts} experts do not divide over them")

    def numbers(self, batch: int, layer: int, *, k: int, num_experts: int) -> Numbers:
        """The policy for a step of `batch` requests in `layer`, as numbers."""
        k0 = None if self.k0 is None or batch < self.min_batch else self.k0.at(batch, layer)
        if k0 is None:
            return Numbers(k, k, num_experts)
        if self.name == "pruned":
            return Numbers(k0, k0, num_experts)
        share = self.share.at(batch, layer) if isinstance(self.share, Schedule) else self.share
        mix = self.mix.at(batch, layer) if isinstance(self.mix, Schedule) else self.mix
        # floats, whatever was given: the loop is compiled for them
        weighs = {
            "p": float(self.p),
            "share": float(share or 0.0),
            "mix": 1.0 if mix is None else float(mix),
        }
        drafts = UNBOUNDED if self.draft_k0 is None else self.draft_k0
        return Numbers(
            k0, self.k_max or k, self.max_rank or num_experts, draft_floor=drafts, **weighs
        )

    @property
    def least(self) -> int:
        """Experts of its own top k that each row is guaranteed, in whatever step and layer; 1 where
        no k0 says the number."""
        if self.k0 is None or self.p < 1.0 or self.share:
            return 1
        return min(*self.k0.values, UNBOUNDED if self.draft_k0 is None else self.draft_k0)

    def is_own(self, layer: int) -> bool:
        """Whether a layer has numbers of its own."""
        schedules = (each for each in (self.k0, self.share, self.mix) if isinstance(each, Schedule))
        return any(layer in each.by_layer for each in schedules)

    @property
    def room(self) -> Room:
        """How far the pool may be widened."""
        return Room(POOLS.index(self.pool), self.rank_budget or 0)

    def is_vanilla(self, batch: int, layer: int, *, k: int, num_experts: int) -> bool:
        """Whether a step of `batch` requests chooses exactly the model's own top k."""
        numbers = self.numbers(batch, layer, k=k, num_experts=num_experts)
        # of its whole own top k, a token scans no more, and a mixture of their mass is their mass
        return self.name != "random" and numbers._replace(reach=num_experts, mix=1.0) == Numbers(
            k, k, num_experts
        )

    def width(self, k: int) -> int:
        """Columns of the routing: k, or k_max where that is more."""
        return max(k, self.k_max or k)
