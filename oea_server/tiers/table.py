"""The tiers as they are written: `gold: exact; silver: k0=5; bronze: auto`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache

from oea_server.oneline import oneline
from oea_server.routing.policy import EXACT

MOST = 8
"""Tiers at a time: each is a label of a few series."""
MOST_NAMES = 32
"""Tiers that a start has series for, whatever they are called in turn; later ones are `other`."""
NAME = re.compile(r"[a-z][a-z0-9_-]{0,19}")
K0 = re.compile(r"k0=([1-9][0-9]{0,3})")
NOT_NAMES = ("none", "other")
"""What labels and texts say where there is no tier."""
SHOWN = 60
"""Characters of what is wrong that a line shows."""


@lru_cache(maxsize=64)
def parse(text: str | None) -> Mapping[str, int]:
    """The promise of each tier, in the order of the text: `EXACT`, a number of experts, or 0. The
    number is what each token is guaranteed; 0 is what the server's policy does anyway. None are no
    tiers.

    Raises:
        ValueError: one line: the part that is wrong, and what may be.
    """
    found: dict[str, int] = {}
    for part in (text or "").split(";") if text is not None else ():
        name, colon, promise = (each.strip() for each in part.partition(":"))
        if not colon:
            raise ValueError(f"tiers: {_shown(part.strip())} is no tier, as 'gold: exact'")
        if NAME.fullmatch(name) is None or name in NOT_NAMES:
            said = (
                "of a-z, 0-9, - and _, up to 20, beginning with a letter, and neither"
                f" {' nor '.join(NOT_NAMES)}"
            )
            raise ValueError(f"tiers: {_shown(name)} is no name for a tier: {said}")
        if name in found:
            raise ValueError(f"tiers: {name} is there twice; name each tier once")
        found[name] = _promise(name, promise)
    if len(found) > MOST:
        raise ValueError(f"tiers: there are {len(found)}, above {MOST}; leave some out")
    return found


def _promise(name: str, text: str) -> int:
    if text == "exact":
        return EXACT
    if text == "auto":
        return 0
    if match := K0.fullmatch(text):
        return int(match[1])
    raise ValueError(f"tiers: {name}: {_shown(text)} is none of exact, k0=5 (1 to 9999) and auto")


def said(promise: int) -> str:
    """A promise as it is written."""
    return {EXACT: "exact", 0: "auto"}.get(promise, f"k0={promise}")


def problem_of(tiers: Mapping[str, int], k: int, least: int) -> str | None:
    """Which tier this server cannot keep, or promises less than every token is guaranteed; None if
    all are fine.

    Args:
        k: the model's top k; 0 if nobody knows it here.
        least: what a tier may promise at least.
    """
    for name, promise in tiers.items():
        if promise in (0, EXACT):
            continue
        if k and promise > k:
            return f"tiers: {name}: k0={promise} is above {k}, the model's top k"
        if promise < least:
            return (
                f"tiers: {name}: k0={promise} is below {least}, the least that this server takes;"
                " auto promises no k0"
            )
    return None


def named(tier: str, known: Collection[str]) -> str:
    """What a tier is called in a label: its name, as long as there is room for one more."""
    return tier if tier in known or len(known) < MOST_NAMES else "other"


def _shown(text: str) -> str:
    return f"{oneline(text, SHOWN)!a}"
