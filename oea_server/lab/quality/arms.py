"""What is compared, as text: a policy of the server, or rules for its three steps.

vanilla   pruned:3   oea:3   oea:8/share=0.13/mix=0.5   oea:3/max_rank=8   oea:3/k_max=10
oea:8/p=0.7 share:0.13   vote:24/power=2/floor=1   lynx:24   oea:3/weights=scored
    fill:3/ranks=8   budget:7/ranks=8   split:3/ranks=8
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from oea_server.lab.quality import grammar, rules, serving
from oea_server.lab.quality.grammar import ArmError, Kind, Spelled
from oea_server.lab.quality.routed import Routers
from oea_server.lab.quality.serving import Routed
from oea_server.routing.policy import Policy

__all__ = ["Arm", "ArmError", "Chooser", "check", "of", "parse"]

Chooser = Callable[[torch.Tensor, int], Routed]
"""Router logits [G, L, B, N] and a layer -> routing of the same leading dimensions."""


class Arm(NamedTuple):
    """One thing that is compared.

    Args:
        label: its text.
        kind: the text's first word.
        policy: where the server offers it.
        chooser: for a model's routers.
        says: what its text says; None where no text made it.
    """

    label: str
    kind: str
    policy: Policy | None
    chooser: Callable[[Routers], Chooser]
    says: Kind | None = None

    @property
    def is_plain_oea(self) -> bool:
        """Whether the arm is OEA with nothing but a k0, with which others are compared."""
        return self.kind == "oea" and "/" not in self.label


def parse(text: str) -> Arm:
    """Read one arm.

    Raises:
        ArmError: it is not known, or a number is missing or out of bounds.
    """
    return of(grammar.read(text))


def of(spelled: Spelled) -> Arm:
    """An arm from what its text says."""
    label, says = spelled.label, spelled.says
    policy = says.policy()
    if policy is not None:
        serve = partial(_served, policy)
        return Arm(label, spelled.kind, policy, lambda found: partial(serve, found), says)
    if isinstance(says, grammar.Split):
        split = partial(_split, Policy.oea(says.k0, min_batch=1), says.ranks)
        return Arm(label, spelled.kind, None, lambda found: partial(split, found), says)
    floor, pool = _steps(says)
    weigh = _weigh(says)
    most: int | None = getattr(says, "k_max", None)

    def chooser(found: Routers) -> Chooser:
        def choose(logits: torch.Tensor, layer: int) -> Routed:
            return Routed(
                *rules.route(logits, found.each[layer], floor, pool, weigh, most), "rules"
            )

        return choose

    return Arm(label, spelled.kind, None, chooser, says)


def check(arm: Arm, found: Routers, batch: int) -> None:
    """Check an arm against a model and a batch size, before anything is measured.

    Raises:
        ArmError: a knob asks for more than there is, or for what has no effect there.
    """
    try:
        if arm.says is not None:
            arm.says.check(k=found.k, num_experts=found.num_experts)
            arm.says.check_batch(batch)
        if arm.policy is not None:
            arm.policy.check(
                k=found.k, num_experts=found.num_experts, renormalize=found.renormalize
            )
    except ValueError as error:
        raise ArmError(f"{arm.label}: {error}") from None


def _steps(says: Kind) -> tuple[rules.Floor, rules.Pool]:
    """The floor and the pool of an experiment."""
    match says:
        case grammar.Oea():
            return rules.top(says.k0, says.share), rules.union
        case grammar.Share():
            return rules.shares_above(says.tau), rules.union
        case grammar.Vote():
            return rules.top(says.floor), rules.vote(says.experts, says.power)
        case grammar.Lynx():
            return rules.top(says.floor), rules.lynx(says.experts)
        case grammar.Fill():
            return rules.top(says.k0, says.share), rules.fill_ranks(says.ranks, says.power)
        case grammar.Budget():
            return rules.top(says.floor), rules.fill_ranks(
                says.ranks, says.power, says.rank_experts
            )
    raise TypeError(f"no rule for {type(says).__name__}")


def _weigh(says: Kind) -> rules.Weigh:
    mix: float | None = getattr(says, "mix", None)
    if mix is not None:
        return rules.between(mix)
    return rules.chosen if getattr(says, "weights", None) is None else rules.as_scored


def _split(policy: Policy, ranks: int, found: Routers, logits: torch.Tensor, layer: int) -> Routed:
    """Each rank routes its own tokens alone: DP attention, without a reduction."""
    each = _served(policy, found, logits.unflatten(-2, (ranks, -1)), layer)
    return Routed(
        each.weights.flatten(-3, -2), each.ids.flatten(-3, -2), each.pool.any(dim=-2), each.by
    )


def _served(policy: Policy, found: Routers, logits: torch.Tensor, layer: int) -> Routed:
    return serving.route(logits, policy, found, layer)
