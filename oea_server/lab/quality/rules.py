"""Rules for the three steps that the server does not offer, written to be compared with those that
it does.

Each takes many steps at once ([..., B, N], as `eager.route` does) and is put together from its
parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from oea_server.routing import Router, Routing, eager
from oea_server.routing.policy import Numbers
from oea_server.routing.ranking import arange, expert_of


class Step(NamedTuple):
    """What a rule may look at.

    Args:
        scores: [..., B, N], of the router logits, as the model scores.
        keys: [..., B, N], distinct, better is higher.
        best: [..., B, k], the keys of each token's own top k, best first.
        share: [..., B, k], their scores over the sum of them.
    """

    scores: torch.Tensor
    keys: torch.Tensor
    best: torch.Tensor
    share: torch.Tensor

    @classmethod
    def of(cls, router_logits: torch.Tensor, router: Router) -> Step:
        """Read router logits [..., B, N]."""
        scores = eager.scores_of(router_logits.float(), router.scoring)
        keys = eager.own_keys(router_logits.float(), scores, router)
        best = keys.topk(router.k, dim=-1).values
        own = scores.gather(-1, expert_of(best))
        return cls(scores, keys, best, own / own.sum(dim=-1, keepdim=True))

    @property
    def own(self) -> torch.Tensor:
        """The mass of each token's own top k, [..., B, 1]."""
        return self.scores.gather(-1, expert_of(self.best)).sum(dim=-1, keepdim=True)

    def wanted(self, votes: torch.Tensor) -> torch.Tensor:
        """Votes of the tokens for their own top k [..., B, k], added up by expert. [..., N]
        float32."""
        spread = torch.zeros_like(self.scores).scatter(-1, expert_of(self.best), votes)
        return spread.sum(dim=-2)


Floor = Callable[[Step], torch.Tensor]
"""-> [..., B, k] bool: which of its own top k each token is guaranteed; a prefix."""
Pool = Callable[[Step, torch.Tensor], torch.Tensor]
"""(step, union of the floors [..., N] bool) -> [..., N] bool, which contains it."""
Weigh = Callable[[Step, torch.Tensor, torch.Tensor], torch.Tensor]
"""(step, scores of the chosen [..., B, k], 0 where unused; mass of the vanilla top k [..., B, 1])
-> weights."""


def route(
    router_logits: torch.Tensor,
    router: Router,
    floor: Floor,
    pool: Pool,
    weigh: Weigh,
    k_max: int | None = None,
) -> Routing:
    """floor -> pool -> fill by three rules; a token takes up to `k_max` experts, k if None."""
    step = Step.of(router_logits, router)
    num_experts = router_logits.shape[-1]
    chosen_pool = pool(step, eager.pool_of(step.keys, step.best, floor(step)))
    limit = k_max or router.k
    numbers = Numbers(router.k, limit, num_experts)
    chosen, used = eager.fill(step.keys, chosen_pool[..., None, :], numbers, limit, None)
    as_it_is = Router(router.k, renormalize=False)
    routing, _ = eager.weigh(chosen, used, chosen_pool, step.scores, step.own, as_it_is, 1.0, None)
    return routing._replace(weights=weigh(step, routing.weights, step.own) * router.scale)


def top(k0: int, share: float = 0.0) -> Floor:
    """OEA's: each token's top k0, or those of them that hold more than a share."""

    def rule(step: Step) -> torch.Tensor:
        held = (arange(step.best.shape[-1], step.best.device) < k0).expand(step.best.shape)
        return held & shares_above(share)(step) if share else held

    return rule


def shares_above(tau: float) -> Floor:
    """Every expert that holds more than `tau` of the mass of the token's top k, the first in any
    case."""
    return lambda step: (step.share > tau) | top(1)(step)


def union(step: Step, floors: torch.Tensor) -> torch.Tensor:
    """OEA's: the floors and nothing else."""
    return floors


def vote(size: int, power: float) -> Pool:
    """The floors, then the most wanted up to `size`: by the sum over tokens of share^power of the
    token's top k."""
    return lambda step, floors: filled(step.wanted(step.share**power), floors, size)


def lynx(size: int) -> Pool:
    """LYNX's score (arXiv 2411.08982): the sum of B^bin, bin the floor of the log-ratio to the
    token's first."""

    def rule(step: Step, floors: torch.Tensor) -> torch.Tensor:
        batch = step.best.shape[-2]
        bins = (step.share / step.share[..., :1]).log().floor()
        return filled(step.wanted((bins * math.log(max(batch, 2))).exp()), floors, size)

    return rule


def fill_ranks(ranks: int, power: float, size: int | None = None) -> Pool:
    """Experts in `ranks` equal parts; each takes its most wanted up to the busiest one's floors, or
    to `size`."""

    def rule(step: Step, floors: torch.Tensor) -> torch.Tensor:
        wanted = step.wanted(step.share**power).unflatten(-1, (ranks, -1))
        held = floors.unflatten(-1, (ranks, -1))
        room: torch.Tensor | int = (
            held.sum(dim=-1).amax(dim=-1)[..., None, None] if size is None else size
        )
        return filled(wanted, held, room).flatten(-2)

    return rule


def filled(wanted: torch.Tensor, floors: torch.Tensor, size: int | torch.Tensor) -> torch.Tensor:
    """The floors, then the most wanted until there are `size` of them. An expert that no token
    wants is never taken. [..., N]."""
    order = torch.where(floors, torch.inf, wanted)
    place = order.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return floors | ((place < size) & (wanted > 0))


def chosen(step: Step, scores: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Divided by what was chosen: they sum to 1, as the model's own do."""
    return scores / scores.sum(dim=-1, keepdim=True)


def between(alpha: float) -> Weigh:
    """Divided by a mixture of what was chosen (alpha = 1) and of what vanilla would have (alpha =
    0)."""
    return lambda step, scores, own: (
        scores / (alpha * scores.sum(dim=-1, keepdim=True) + (1 - alpha) * own)
    )


def as_scored(step: Step, scores: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Weights as scored, without division."""
    return scores
