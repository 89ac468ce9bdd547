"""What a period was like, from the counters that the server keeps anyway."""

from __future__ import annotations

from typing import NamedTuple

from oea_server.controller import token_times
from oea_server.controller.law import Seen
from oea_server.controller.token_times import Times
from oea_server.observe import counts
from oea_server.observe.counts import Totals

LEAST = 8
"""Steps in a period, and times between tokens, from which something is said of it."""


class Look(NamedTuple):
    """Everything counted since the start."""

    totals: Totals | None
    times: Times


def seen(before: Look, after: Look, percentile: float | None) -> Seen | None:
    """The period between two looks; None where too little was served in it, or counted."""
    if after.totals is None:
        return None
    fresh = after.totals.since(before.totals)
    tpot = token_times.between(before.times, after.times, percentile)
    what = counts.summary(fresh)
    unique, vanilla = what["unique_experts"], what["vanilla_unique_experts"]
    if (
        tpot is None
        or fresh.steps < LEAST
        or after.times.number - before.times.number < LEAST
        or not vanilla
    ):
        return None
    return Seen(tpot, fresh.step_requests / fresh.steps, vanilla, unique, what["mass_kept"])
