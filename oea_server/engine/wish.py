"""What a request wishes for itself: `custom_params: {"oea": {"exact": true}}`, or `{"oea": {"k0": 6}}`.

As it came from a client: anything may be in it. What is nonsense is one line, for SGLang's own 400.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oea_server.routing.contract import EXACT

WHERE = "custom_params.oea"
WISHES = ("exact", "k0")


def of(custom_params: Any) -> int:
    """The experts that each token of a request wants guaranteed: `EXACT` for all of its own, 0 if it wishes nothing.

    Args:
        custom_params: SGLang's `SamplingParams.custom_params`, which other plug-ins and processors share.

    Raises:
        ValueError: one line: the field, what is there, what may be.
    """
    if not isinstance(custom_params, Mapping) or "oea" not in custom_params:
        return 0
    wish = custom_params["oea"]
    if not isinstance(wish, Mapping):
        raise ValueError(f'{WHERE}: {shown(wish)} is no object, as {{"exact": true}} or {{"k0": 6}}')
    if "tier" in wish:
        raise ValueError(f"{WHERE}.tier: this server has no tiers; there are {' and '.join(WISHES)}")
    if unknown := [key for key in wish if key not in WISHES]:
        raise ValueError(f"{WHERE}: {shown(unknown[0])} is no wish; there are {' and '.join(WISHES)}")
    if len(wish) != 1:
        what = "is empty" if not wish else "exact and k0 are two wishes"
        raise ValueError(f"{WHERE}: {what}; give one of {' and '.join(WISHES)}")
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
