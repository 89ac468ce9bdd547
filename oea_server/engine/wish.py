"""What a request wishes for itself: `custom_params: {"oea": {"exact": true}}`, or `{"oea": {"k0":
6}}`, or a tier.

As it came from a client: anything may be in it. What is nonsense is one line, for SGLang's own 400.
Where there are tiers, what was admitted is written in its place, and travels to the schedulers with
the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from oea_server.routing.policy import EXACT

WHERE = "custom_params.oea"
WISHES = ("exact", "k0")
TIER, PROMISE = "tier", "promise"


class Admitted(dict[str, Any]):
    """What stands under "oea" once a request was admitted: its tier, if it has one, and what it is
    promised. No client can send one; over the wire it is a plain object."""

    @classmethod
    def of(cls, tier: str | None, promise: int) -> Admitted:
        return cls({PROMISE: promise} if tier is None else {TIER: tier, PROMISE: promise})


class Carried(NamedTuple):
    """What a request that came to a scheduler is to get."""

    tier: str | None
    promise: int


def carried(custom_params: Any) -> Carried:
    """What was admitted, or, where there are no tiers, what a request wishes.

    Raises:
        ValueError: as `of`.
    """
    found = custom_params.get("oea") if isinstance(custom_params, Mapping) else None
    if isinstance(found, Mapping) and PROMISE in found:
        return Carried(found.get(TIER), int(found[PROMISE]))
    return Carried(None, of(custom_params))


def tier_of(custom_params: Any) -> str | None:
    """The tier that a request asks for; None if for none.

    Raises:
        ValueError: one line: it is no name.
    """
    found = custom_params.get("oea") if isinstance(custom_params, Mapping) else None
    if not isinstance(found, Mapping) or set(found) != {TIER}:
        return None
    name = found[TIER]
    if not isinstance(name, str):
        raise ValueError(f"{WHERE}.{TIER}: {shown(name)} is no name of a tier")
    return name


def of(custom_params: Any, tiers: bool = False) -> int:
    """The experts that each token of a request wants guaranteed: `EXACT` for all of its own, 0 if
    it wishes nothing.

    Args:
        custom_params: SGLang's `SamplingParams.custom_params`, which other plug-ins and processors
            share.
        tiers: whether there are any; what asks for one alone is read by `tier_of`.

    Raises:
        ValueError: one line: the field, what is there, what may be.
    """
    if not isinstance(custom_params, Mapping) or "oea" not in custom_params:
        return 0
    wish = custom_params["oea"]
    if not isinstance(wish, Mapping):
        raise ValueError(
            f'{WHERE}: {shown(wish)} is no object, as {{"exact": true}} or {{"k0": 6}}'
        )
    if TIER in wish and not tiers:
        raise ValueError(
            f"{WHERE}.tier: this server has no tiers; there are {' and '.join(WISHES)}"
        )
    wishes = (*WISHES, TIER) if tiers else WISHES
    if unknown := [key for key in wish if key not in wishes]:
        raise ValueError(
            f"{WHERE}: {shown(unknown[0])} is no wish; there are {' and '.join(wishes)}"
        )
    if len(wish) != 1:
        what = (
            "is empty"
            if not wish
            else f"{' and '.join(each for each in wishes if each in wish)} are two wishes"
        )
        raise ValueError(f"{WHERE}: {what}; give one of {' and '.join(wishes)}")
    if "exact" in wish:
        if not isinstance(wish["exact"], bool):
            raise ValueError(f"{WHERE}.exact: {shown(wish['exact'])} is neither true nor false")
        return EXACT if wish["exact"] else 0
    k0 = wish["k0"]
    if type(k0) is not int:
        raise ValueError(f"{WHERE}.k0: {shown(k0)} is no whole number")
    if not 1 <= k0 < EXACT:
        raise ValueError(f"{WHERE}.k0: {shown(k0)} is outside 1..{EXACT - 1}")
    return k0


def problem_of(wish: int, k: int, least: int, below: str) -> str | None:
    """Why a wish cannot be kept or need not be, None if nothing is wrong with it.

    Args:
        k: the model's top k; 0 if nobody knows it here.
        least: what a wish may be at least.
        below: what is wrong with one below it, in words.
    """
    if wish in (0, EXACT):
        return None
    if k and wish > k:
        return f"{WHERE}.k0: {wish} is above {k}, the model's top k"
    if wish < least:
        return f"{WHERE}.k0: {wish} is below {least}, {below}"
    return None


def shown(value: Any) -> str:
    """What a client sent, as a part of one line."""
    return f"{str(value)[:60]!a}" if isinstance(value, str) else ascii(value)[:60]
