"""The controller in SGLang's HTTP process. A thread looks at counters there, and asks the
schedulers from SGLang's own event loop, as `PUT /oea/config` does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from oea_server.controller import goal, routes, token_times
from oea_server.controller.keeper import Keeper, RefusedError, Server
from oea_server.controller.metrics import Metrics
from oea_server.controller.watch import Look
from oea_server.observe import applying, latency
from oea_server.observe.applying import RefusalError, Schedulers
from oea_server.observe.stats import Stats

PATIENCE = 2 * applying.PATIENCE
"""Seconds that a question to the schedulers may take: they are asked twice for a change."""


def start(
    http_server: Any,
    schedulers: Schedulers,
    stats: Stats,
    turn: Callable[[], AbstractAsyncContextManager[None]],
    asked: goal.Asked,
    place: Path,
    lines: Sequence[latency.Line],
    admin: Callable[[Any], Any],
) -> None:
    """Steer this server, and add the controller's routes.

    Args:
        http_server: `sglang.srt.entrypoints.http_server`.
        place: the folder of the start's metrics.
    """

    def ask(question: Any) -> Any:
        loop = getattr(
            getattr(http_server._global_state, "tokenizer_manager", None), "event_loop", None
        )
        if loop is None:
            question.close()
            raise RefusedError("SGLang's event loop does not run yet")
        try:
            return asyncio.run_coroutine_threadsafe(question, loop).result(PATIENCE)
        except RefusalError as error:
            raise RefusedError(str(error)) from None
        except TimeoutError:
            raise RefusedError(f"the schedulers did not answer in {PATIENCE:.0f} s") from None

    async def state() -> dict[str, Any]:
        return (await applying.patiently(schedulers.states(), "nothing changed"))[0]

    async def change(knobs: Mapping[str, Any]) -> dict[str, Any]:
        async with turn():
            after = (await applying.apply(schedulers, knobs)).state
        stats.learn(after)
        return after

    def slope(model: Mapping[str, Any], batch: float) -> float:
        return (
            1e-6 * latency.nearest(list(lines), batch).slope_us * model["layers"] if lines else 0.0
        )

    server = Server(
        look=lambda: Look(stats.latest(), token_times.read(place)),
        state=lambda: ask(state()),
        change=lambda knobs: ask(change(knobs)),
        slope=slope,
    )
    keeper = Keeper(asked, server)
    metrics = Metrics()
    metrics.write(keeper)
    routes.add(http_server.app, keeper, admin)
    stats.controller = keeper.state
    threading.Thread(
        target=keeper.run, args=(lambda: metrics.write(keeper),), name="oea-controller", daemon=True
    ).start()
