"""Our routes on SGLang's HTTP server.

Seams: BEFORE `sglang.srt.entrypoints.http_server._setup_and_run_http_server`, when the app exists and
does not serve yet; AROUND `sglang.srt.utils.auth.decide_request_auth`, for the page, which a browser
must be able to load before anybody can type a key into it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from oea_server.engine import runtime
from oea_server.engine.refuse import refuse
from oea_server.settings import LIVE_PREFIX

STARTED = time.time()
"""Before any scheduler is: what they write is later."""

APP_PATH = "SGLANG_HTTP_SERVER_APP_PATH"
"""SGLang's variable for the app that several HTTP workers import, each in a process of its own."""


def before_setup_and_run_http_server(server_args: Any, *args: Any, **kwargs: Any) -> None:
    """Add the routes, here or, where workers import the app, to what they import."""
    from sglang.srt.entrypoints import http_server

    if server_args.tokenizer_worker_num > 1:
        os.environ.setdefault(APP_PATH, "oea_server.engine.http_app:app")
        return
    add_routes(http_server)


def add_routes(http_server: Any) -> None:
    """Add the routes to `sglang.srt.entrypoints.http_server`'s app."""
    from sglang.srt.utils import auth

    from oea_server.observe import latency, routes, snapshot
    from oea_server.observe.stats import Stats

    assert runtime.current is not None
    line = runtime.current.settings.latency_line
    stats = Stats(snapshot.folder(), STARTED, latency.read(line) if line else ())
    stats.start()
    admin = auth.AuthLevel.ADMIN_OPTIONAL
    routes.add(http_server.app, Schedulers(http_server), stats, auth.auth_level(admin))
    # SGLang looks marks up by the route; one that it does not find is no protection, and says nothing
    change = {"type": "http", "method": "PUT", "path": routes.CONFIG, "root_path": "", "headers": []}
    if auth._get_auth_level_from_app_and_scope(http_server.app, change) != admin:
        refuse(f"SGLang would let PUT {routes.CONFIG} through without the admin key")


def around_decide_request_auth(original: Any, *, method: str, path: str, **kwargs: Any) -> Any:
    """Let anybody load the page; what it shows then needs the key, as before."""
    from sglang.srt.utils.auth import AuthDecision

    from oea_server.observe.routes import PAGE

    if method == "GET" and path == PAGE:
        return AuthDecision(allowed=True)
    return original(method=method, path=path, **kwargs)


class Schedulers:
    """`oea_server.observe.routes.Schedulers` over SGLang's tokenizer manager."""

    def __init__(self, http_server: Any) -> None:
        self._http_server = http_server

    async def states(self) -> list[dict[str, Any]]:
        return [state["oea"] for state in await self._manager.get_internal_state()]

    async def change(self, knobs: Mapping[str, Any]) -> list[bool]:
        from sglang.srt.managers.io_struct import SetInternalStateReq

        # it carries numbers: a text goes into the name (oea_server.engine.control)
        named = {f"{LIVE_PREFIX}{name}={'none' if value is None else value}": 1 for name, value in knobs.items()}
        taken: list[bool] = await self._manager.set_internal_state(SetInternalStateReq(server_args=named))
        return taken

    @property
    def _manager(self) -> Any:
        return self._http_server._global_state.tokenizer_manager
