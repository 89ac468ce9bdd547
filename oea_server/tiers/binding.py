"""Who may ask for which tier: by its key, by a header that the operator trusts, or anybody for any.

What a request is bound to is its ceiling: it may ask for that tier, which it gets if it asks for
none, and for those that promise no more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from oea_server.oneline import oneline
from oea_server.tiers import keys
from oea_server.tiers.table import said

HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
TAKEN = {
    *(
        "accept",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
    ),
    *(
        "host",
        "origin",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-forwarded-for",
        "x-real-ip",
    ),
    "x-oea-warm-up",
}
"""Headers that mean something else."""


class Binding(NamedTuple):
    """What binds requests to tiers; nothing, if both are missing."""

    header: str | None = None
    """The header's name in small letters."""
    keys: Mapping[str, str] = {}
    """`oea_server.tiers.keys.read`."""

    @property
    def tiers(self) -> set[str]:
        """The tiers that keys are bound to."""
        return set(self.keys.values()) - {keys.ANY}


class Asker(NamedTuple):
    """What is known of a request's sender."""

    tier: str | None
    """The tier that is theirs; None for none."""
    source: str
    """Where the tier comes from, in words."""
    bound: bool
    """Whether the sender may ask for no tier above their own."""
    asked: str | None = None
    """The tier that the sender asks for by the header, where the header only asks."""


class Admitted(NamedTuple):
    """What a request gets."""

    tier: str | None
    promise: int


def header_problem(name: str) -> str | None:
    """Why a header cannot name tiers, None if it can."""
    if HEADER.fullmatch(name) is None:
        return (
            f"tier_header={oneline(name, 80)}: not a header's name of letters, digits and -, such"
            " as X-OEA-Tier"
        )
    if name.lower() in TAKEN:
        return (
            f"tier_header={name}: this header means something else; name one of your own, such as"
            " X-OEA-Tier"
        )
    return None


def bearer(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key that a request bears; None without one, and with more than one."""
    given = [value for name, value in headers if name.lower() == b"authorization"]
    scheme, _, key = given[0].decode("latin-1").partition(" ") if len(given) == 1 else ("", "", "")
    return key if scheme.lower() == "bearer" and key else None


def knows(binding: Binding, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request bears one of the keys."""
    key = bearer(headers) if binding.keys else None
    return key is not None and keys.hashed(key) in binding.keys


def asker(binding: Binding, headers: Iterable[tuple[bytes, bytes]], default: str | None) -> Asker:
    """Who asks, by the headers of an ASGI scope; of a request from inside, which has none, the
    default tier.

    Raises:
        ValueError: one line: the header is there twice.
    """
    headers = list(headers)
    named = None
    if binding.header is not None:
        values = [
            value for name, value in headers if name.lower() == binding.header.encode("ascii")
        ]
        if len(values) > 1:
            raise ValueError(
                f"{binding.header}: the header is there {len(values)} times; send it once"
            )
        named = values[0].decode("latin-1").strip() if values else None
    if not binding.keys:
        if named is not None:
            return Asker(named, f"header {binding.header}", bound=True)
        return Asker(default, "the default", bound=binding.header is not None)
    key = bearer(headers)
    owner = None if key is None else binding.keys.get(keys.hashed(key))
    if owner == keys.ANY and named is not None:
        return Asker(named, f"header {binding.header}", bound=True)
    if owner in (None, keys.ANY):
        return Asker(default, "the default", bound=True, asked=named)
    return Asker(owner, "its key", bound=True, asked=named)


def admit(
    tiers: Mapping[str, int], who: Asker, body: str | None, wished: int, least: int
) -> Admitted:
    """The tier of a request, and what it is promised.

    Args:
        tiers: `oea_server.tiers.table.parse`.
        body: the tier that its body asks for.
        wished: what it asks for beside a tier: `oea_server.routing.contract.EXACT`, a k0, or 0.
        least: the k0 that every token is guaranteed.

    Raises:
        ValueError: one line: there is no such tier, or it is above the request's own.
    """
    if who.tier is not None and who.tier not in tiers:
        raise ValueError(f"{who.source}: {_no_tier(who.tier, tiers)}")
    if who.asked is not None and body is not None and who.asked != body:
        raise ValueError(
            f"custom_params.oea.tier: {body!a:.60}, and the header says another tier: ask for one"
        )
    asked, by = (who.asked, "the header") if body is None else (body, "custom_params.oea.tier")
    if asked is not None and asked not in tiers:
        raise ValueError(f"{by}: {_no_tier(asked, tiers)}")
    own = tiers[who.tier] if who.tier is not None else 0

    def above(promise: int) -> bool:
        return who.bound and promise != own and promise > max(own, least)

    whose = (
        f"{f'tier {who.tier}' if who.tier else 'no tier'} ({said(own)}), which is this request's by"
        f" {who.source}"
    )
    if asked is not None and above(tiers[asked]):
        raise ValueError(f"{by}: {asked} is above {whose}")
    if above(wished):
        raise ValueError(f"custom_params.oea: {said(wished)} is above {whose}")
    tier = who.tier if asked is None else asked
    return Admitted(tier, max(wished, tiers[tier] if tier is not None else 0))


def _no_tier(name: str, tiers: Mapping[str, int]) -> str:
    return f"{oneline(name, 60)!a} is no tier of this server; there are {', '.join(tiers)}"
