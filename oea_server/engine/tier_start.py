"""Whether tiers, and what binds requests to them, can be held by a launch: asked before any weights
are loaded."""

from __future__ import annotations

from oea_server.settings import Settings
from oea_server.tiers import keys, table
from oea_server.tiers.binding import Binding

METRICS = "who serves HTTP learns by the metrics which are in effect, so they need --enable-metrics"


def problems(settings: Settings, metrics: bool = True) -> list[str]:
    """A line for each reason why not.

    Args:
        metrics: whether the server has any.
    """
    found = []
    tiers = table.parse(settings.tiers)
    if tiers and not metrics:
        found.append(f"tiers: {METRICS}")
    if settings.tier_keys is None:
        return found
    try:
        bound = Binding(None, keys.read(settings.tier_keys))
    except ValueError as error:
        return [*found, str(error)]
    source = f"tier_keys={settings.tier_keys}"
    if gone := sorted(bound.tiers - set(tiers)):
        found.append(f"{source}: {gone[0]} is no tier; there are {', '.join(tiers)}")
    if keys.ANY in bound.keys.values() and settings.tier_header is None:
        found.append(
            f"{source}: a key for {keys.ANY} names tiers by a header; say which (tier_header)"
        )
    return found
