"""What `/oea/stats` says of tiers: a row for each that there is, or was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oea_server.observe.counts import Totals
from oea_server.observe.tier_metrics import Served
from oea_server.routing.tally import MASS_UNIT
from oea_server.tiers import table


def rows(
    settings: Mapping[str, Any],
    recent: Totals,
    total: Totals,
    served: Sequence[Mapping[str, Served]],
) -> list[dict[str, Any]]:
    """The tiers in effect in their order, then the tiers that are gone.

    Args:
        settings: the live knobs.
        recent: what was counted in the last minute; `total` since the start.
        served: what clients got since the start, second by second of the last minute.
    """
    promises = table.parse(settings["tiers"])
    last, first = (served[-1], served[0]) if served else ({}, {})
    names = dict.fromkeys([*promises, *total.tiers, *last])
    return [
        {
            "tier": name,
            "promise": table.said(promises[name]) if name in promises else None,
            "default": name == settings["default_tier"],
            **_kept(recent.tiers.get(name), total.tiers.get(name)),
            **_got(last.get(name, Served()), first.get(name, Served())),
        }
        for name in names
    ]


def _kept(
    recent: tuple[int, int, int] | None, total: tuple[int, int, int] | None
) -> dict[str, Any]:
    """Mass kept in the last minute, or since the start where no request of the tier was served in
    it."""
    tokens, mass, _ = recent if recent and recent[0] else total or (0, 0, 0)
    return {
        "mass_kept": round(mass / MASS_UNIT / tokens, 4) if tokens else None,
        "broken": total[2] if total else 0,
    }


def _got(last: Served, first: Served) -> dict[str, Any]:
    later, seconds = last.later - first.later, last.seconds - first.seconds
    if not later:
        later, seconds = last.later, last.seconds
    return {
        "requests": last.requests,
        "tokens": last.tokens,
        "tpot_ms": round(1e3 * seconds / later, 3) if later else None,
    }
