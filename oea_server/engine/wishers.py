"""Whose requests wish something, in a scheduler: what each row of its steps is to be guaranteed.

Seam: AFTER `sglang.srt.managers.schedule_batch.Req.__init__`. A request's parameters came to every rank with it, and
its id is in each step's batch. SGLang takes no two requests of one id at a time.
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


def after_init(result: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """Remember a request that wishes something."""
    given = self.sampling_params.custom_params
    if not given or "oea" not in given:
        return
    try:
        self.oea_wish = wish.of(given)
    except ValueError as error:  # `--preferred-sampling-params`: what a client sends was looked at before
        logger.warning("OEA: a request is served without its wish: %s", error)
        return
    if self.oea_wish:
        asking[self.rid] = self


def of(request_ids: Sequence[str], *, as_it_is: bool) -> tuple[int, ...]:
    """What the requests of a step ask of `oea_server.routing.route`, one number for each; () if none does.

    Args:
        as_it_is: whether a wish replaces the policy's floor; else it only adds to it.
    """
    wished = [0 if (req := asking.get(rid)) is None else req.oea_wish for rid in request_ids]
    return tuple(wished if as_it_is else [-each for each in wished]) if any(wished) else ()
