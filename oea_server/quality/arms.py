"""What is compared, as text: a policy of the server, or rules for its three steps.

vanilla   pruned:3   oea:3   oea:3/max_rank=8   oea:3/k_max=10   oea:8/p=0.7
share:0.13   vote:24/power=2/floor=1   lynx:24   oea:3/mix=0.5   oea:3/weights=scored
    fill:3/ranks=8   budget:7/ranks=8   split:3/ranks=8
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch

from oea_server.quality import rules, serving
from oea_server.quality.routed import Routers
from oea_server.quality.serving import Routed
from oea_server.routing.policy import Policy

Chooser = Callable[[torch.Tensor, int], Routed]
"""Router logits [G, L, B, N] and a layer -> routing of the same leading dimensions."""

SERVED = ("vanilla", "pruned", "oea")
RANKED = ("fill", "budget")
"""The server's pools, where neither the votes nor the floors are others."""
KNOBS: Mapping[str, Mapping[str, Callable[[str], float]]] = {
    "vanilla": {},
    "pruned": {},
    "oea": {"p": float, "k_max": int, "max_rank": int, "mix": float, "weights": str},  # type: ignore[dict-item]
    "share": {"mix": float, "k_max": int},
    "vote": {"power": float, "floor": int},
    "lynx": {"floor": int},
    "fill": {"ranks": int, "power": float},
    "budget": {"ranks": int, "power": float, "floor": int},
    "split": {"ranks": int},
}


class ArmError(ValueError):
    """One line: what of an arm's text is wrong."""


class Arm(NamedTuple):
    """One thing that is compared.

    Args:
        label: its text.
        kind: the text's first word.
        policy: where the server offers it.
        chooser: for a model's routers.
    """

    label: str
    kind: str
    policy: Policy | None
    chooser: Callable[[Routers], Chooser]

    @property
    def is_plain_oea(self) -> bool:
        """Whether it is what others are compared with: OEA with nothing but a k0."""
        return self.kind == "oea" and "/" not in self.label


def parse(text: str) -> Arm:
    """Read one arm.

    Raises:
        ArmError: it is not known, or a number is missing or out of bounds.
    """
    head, *parts = text.strip().split("/")
    kind, _, number = head.partition(":")
    if kind not in KNOBS:
        raise ArmError(f"{text}: is none of {', '.join(KNOBS)}")
    if (kind == "vanilla") == bool(number):
        raise ArmError(f"{text}: {kind} " + ("takes no number" if number else f"needs a number, as in {kind}:3"))
    knobs: dict[str, float] = {}
    try:
        for part in parts:
            name, _, value = part.partition("=")
            knobs[name] = KNOBS[kind][name](value)
        return _build(text.strip(), kind, number, knobs)
    except KeyError as error:
        raise ArmError(f"{text}: {kind} has no {error.args[0]}; it has {', '.join(KNOBS[kind]) or 'none'}") from None
    except ValueError as error:
        raise ArmError(f"{text}: {error}") from None


def _build(text: str, kind: str, number: str, knobs: Mapping[str, float]) -> Arm:
    mixed = {name: knobs[name] for name in ("mix", "weights") if name in knobs}
    served = kind in SERVED or (kind in RANKED and not {"power", "floor"} & set(knobs))
    if served and not mixed:
        policy = _policy(kind, number, knobs)
        return Arm(text, kind, policy, lambda found: partial(_served, policy, found))
    if kind == "split":
        policy, parts = Policy.oea(int(number), min_batch=1), int(knobs.get("ranks", 8))
        return Arm(text, kind, None, lambda found: partial(_split, policy, parts, found))
    weigh = rules.between(mixed["mix"]) if "mix" in mixed else rules.as_scored if mixed else rules.chosen
    power = knobs.get("power", 2.0 if kind == "vote" else 4.0)
    one = rules.top(int(knobs.get("floor", 1)))
    floor, pool = {
        "oea": lambda: (rules.top(int(number)), rules.union),
        "share": lambda: (rules.shares_above(float(number)), rules.union),
        "vote": lambda: (one, rules.vote(int(number), power)),
        "lynx": lambda: (one, rules.lynx(int(number))),
        "fill": lambda: (rules.top(int(number)), rules.fill_ranks(int(knobs.get("ranks", 8)), power)),
        "budget": lambda: (one, rules.fill_ranks(int(knobs.get("ranks", 8)), power, int(number))),
    }[kind]()

    def chooser(found: Routers) -> Chooser:
        k_max = int(knobs.get("k_max", found.k))

        def choose(logits: torch.Tensor, layer: int) -> Routed:
            return Routed(*rules.route(logits, found.k, floor, pool, weigh, k_max), "rules")

        return choose

    return Arm(text, kind, None, chooser)


def _policy(kind: str, number: str, knobs: Mapping[str, float]) -> Policy:
    if kind == "vanilla":
        return Policy.vanilla()
    if kind == "pruned":
        return Policy.pruned(int(number))
    ranks = int(knobs.get("ranks", 8))
    if kind == "fill":
        return Policy.oea(int(number), pool="fill", ranks=ranks)
    if kind == "budget":
        return Policy.oea(1, pool="budget", ranks=ranks, rank_budget=int(number))
    k_max, max_rank = (int(knobs[name]) if name in knobs else None for name in ("k_max", "max_rank"))
    return Policy.oea(int(number), p=knobs.get("p", 1.0), k_max=k_max, max_rank=max_rank)


def _split(policy: Policy, ranks: int, found: Routers, logits: torch.Tensor, layer: int) -> Routed:
    """Each rank routes its own tokens and knows of no others: DP attention, without a reduction."""
    each = _served(policy, found, logits.unflatten(-2, (ranks, -1)), layer)
    return Routed(each.weights.flatten(-3, -2), each.ids.flatten(-3, -2), each.pool.any(dim=-2), each.by)


def _served(policy: Policy, found: Routers, logits: torch.Tensor, layer: int) -> Routed:
    return serving.route(logits, policy, found, layer)
