"""Our routes on SGLang's HTTP server.

Seam: BEFORE `sglang.srt.entrypoints.http_server._setup_and_run_http_server`, when the app exists
and does not serve yet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from oea_server.access import keys
from oea_server.access.keys import Keys
from oea_server.controller import goal
from oea_server.engine import leftovers, locks, runtime, tier_start, tier_times, warmup
from oea_server.engine.refuse import refuse
from oea_server.observe import turns
from oea_server.observe.applying import RefusalError
from oea_server.settings import LIVE_PREFIX, Settings
from oea_server.tiers import keys as tier_keys
from oea_server.tiers import table
from oea_server.tiers.binding import Binding

APP_PATH = "SGLANG_HTTP_SERVER_APP_PATH"
"""SGLang's variable for the app that several HTTP workers import, each in a process of its own; not
in 0.5.17."""
APP = "oea_server.engine.http_app:app"


def before_setup_and_run_http_server(
    server_args: Any,
    tokenizer_manager: Any,
    template_manager: Any,
    port_args: Any,
    *args: Any,
    **kwargs: Any,
) -> None:
    """Add the routes and the door, here or, where workers import the app, to what they import."""
    from sglang.srt.entrypoints import http_server

    has = Keys(server_args.api_key, server_args.admin_api_key)
    leftovers.remove_at_end(port_args)
    warmup.choose_word()
    if server_args.tokenizer_worker_num > 1:
        hand_to_workers(http_server, server_args, has)
        return
    warmup.sign(http_server)
    add_routes(http_server, has)


def hand_to_workers(http_server: Any, server_args: Any, has: Keys) -> None:
    """Have workers import our app, and find the keys, which SGLang does not take with several
    workers."""
    named = os.environ.setdefault(APP_PATH, APP)
    if named != APP:
        refuse(f"{APP_PATH}={named}: an app without oea-server's routes and locks; unset it")
    if not hasattr(http_server.envs, APP_PATH):
        run = http_server.uvicorn.run
        http_server.uvicorn.run = lambda app, **options: run(APP, **options)
    turns.share()
    for name in keys.VARIABLES:
        os.environ.pop(name, None)
    os.environ |= {name: key for name, key in zip((keys.API, keys.ADMIN), has, strict=True) if key}
    locks.write(server_args, {"api_key": None})


def add_routes_and_locks(http_server: Any, has: Keys) -> None:
    """Add routes and locks in one of several HTTP workers, where SGLang adds no locks itself."""
    from sglang.srt.utils.auth import add_api_key_middleware

    add_routes(http_server, has, os.environ.get(turns.VARIABLE))
    if has.given:
        add_api_key_middleware(http_server.app, api_key=has.api, admin_api_key=has.admin)


def add_routes(http_server: Any, has: Keys, shared: str | None = None) -> None:
    """Add the routes to `sglang.srt.entrypoints.http_server`'s app, and put the door before all of
    it."""
    from sglang.srt.utils import auth

    from oea_server.engine import wish_door
    from oea_server.observe import folder, latency, mergeable, routes, tier_metrics
    from oea_server.observe.stats import Stats

    assert runtime.current is not None
    settings = runtime.current.steering.settings
    place = folder.current()
    lines = latency.read(settings.latency_line) if settings.latency_line else []
    wish_door.bound = binding = bound(settings)
    stats = Stats(
        place, lines, lambda: {} if tier_times.metrics is None else tier_times.metrics.served
    )
    stats.start()
    wish_door.known = lambda: stats.state
    if place is not None:
        tier_times.make = tier_metrics.Times
        mergeable.skip_the_rest(place)
    admin = auth.AuthLevel.ADMIN_OPTIONAL
    schedulers, turn, level = (
        Schedulers(http_server, binding),
        turns.turns(shared),
        auth.auth_level(admin),
    )
    routes.add(http_server.app, schedulers, stats, level, turn)
    if place is not None and (asked := goal.asked(settings)):
        from oea_server.engine import controller_thread

        controller_thread.start(http_server, schedulers, stats, turn, asked, place, lines, level)
    locks.put_door(http_server, has)


def bound(settings: Settings) -> Binding:
    """What binds requests to tiers; who has no business with them has no keys."""
    keys_of = {} if settings.tier_keys is None else tier_keys.read(settings.tier_keys)
    return Binding(None if settings.tier_header is None else settings.tier_header.lower(), keys_of)


class Schedulers:
    """`oea_server.observe.applying.Schedulers` over SGLang's tokenizer manager.

    Args:
        binding: tiers that keys are bound to cannot be taken away.
    """

    def __init__(self, http_server: Any, binding: Binding) -> None:
        self._http_server = http_server
        self._binding = binding

    async def states(self) -> list[dict[str, Any]]:
        return [state["oea"] for state in await self._manager.get_internal_state()]

    async def change(self, knobs: Mapping[str, Any]) -> list[bool]:
        from sglang.srt.managers.io_struct import SetInternalStateReq

        if knobs.get("tiers") is not None and tier_times.make is None:
            raise RefusalError(409, f"tiers: {tier_start.METRICS}")
        if "tiers" in knobs and (gone := self._binding.tiers - set(table.parse(knobs["tiers"]))):
            raise RefusalError(
                409,
                f"tiers: keys are bound to {sorted(gone)[0]} (tier_keys), which would be gone;"
                " keep it",
            )
        # it carries numbers: a text goes into the name (oea_server.engine.control)
        named = {
            f"{LIVE_PREFIX}{name}={'none' if value is None else value}": 1
            for name, value in knobs.items()
        }
        taken: list[bool] = await self._manager.set_internal_state(
            SetInternalStateReq(server_args=named)
        )
        return taken

    @property
    def _manager(self) -> Any:
        return self._http_server._global_state.tokenizer_manager
