"""Whose requests wish something, in a scheduler: what each row of its steps is to be guaranteed.

Seam: AFTER `sglang.srt.managers.schedule_batch.Req.__init__`. A request's parameters came to every
rank with it, and its id is in each step's batch. SGLang takes no two requests of one id at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

from oea_server.engine import wish

logger = logging.getLogger(__name__)

asking: WeakValueDictionary[str, Any] = WeakValueDictionary()
"""The requests that wish something, by their ids, as long as SGLang has them."""
tiered: WeakValueDictionary[str, Any] = WeakValueDictionary()
"""Requests that have a tier, whatever the tier promises."""
NOTHING = wish.Carried(None, 0)


def after_init(result: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """Remember a request that wishes something, or has a tier."""
    has, given = NOTHING, getattr(self.sampling_params, "custom_params", None)
    try:
        has = wish.carried(given) if given else NOTHING
    except ValueError as error:  # it came past the HTTP server, which looks at it before
        logger.warning("OEA: a request is served without its wish: %s", error)
    if has.promise:
        self.oea_wish = has.promise
        asking[self.rid] = self
    elif asking:
        # an earlier one of that id, in a cycle that was not collected yet
        asking.pop(self.rid, None)
    if has.tier is not None:
        self.oea_tier = has
        tiered[self.rid] = self
    elif tiered:
        tiered.pop(self.rid, None)


def of(request_ids: Sequence[str], *, as_it_is: bool) -> tuple[int, ...]:
    """What the requests of a step ask of `oea_server.routing.route`, one number for each; () if
    none does.

    Args:
        as_it_is: whether a wish replaces the policy's floor; else it only adds to it.
    """
    wished = [0 if (req := asking.get(rid)) is None else req.oea_wish for rid in request_ids]
    return tuple(wished if as_it_is else [-each for each in wished]) if any(wished) else ()


def tiers_of(request_ids: Sequence[str]) -> tuple[wish.Carried, ...]:
    """The tier of each request of a step, and what it is promised; () if none has one."""
    found = tuple(
        NOTHING if (req := tiered.get(rid)) is None else req.oea_tier for rid in request_ids
    )
    return found if any(each.tier is not None for each in found) else ()
