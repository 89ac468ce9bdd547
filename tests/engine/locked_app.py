"""SGLang's own HTTP app with our routes and door, on a socket, before a stand-in for the
schedulers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from types import SimpleNamespace
from typing import Any, NamedTuple

import uvicorn
from fastapi import FastAPI
from oea_server_demo import MODEL

from oea_server.access.keys import Keys
from oea_server.engine import control, http, locks, runtime


class Manager:
    """Stands in for SGLang's tokenizer manager: writes down what would have reached the
    schedulers."""

    def __init__(self, server_args: Any) -> None:
        self.server_args = server_args
        self.startup_time = 1.0
        self.reached: list[str] = []

    async def get_internal_state(self) -> list[dict[str, Any]]:
        assert runtime.current is not None
        arguments = {
            "api_key": self.server_args.api_key,
            "admin_api_key": self.server_args.admin_api_key,
        }
        return [{"oea": {**control.state_of(runtime.current), "refused": ""}, **arguments}]

    def resolved_config_dict(self, values: dict[str, Any]) -> dict[str, Any]:
        return values  # 0.5.17's

    async def set_internal_state(self, asked: Any) -> list[bool]:
        self.reached.append("set_internal_state")
        return [True]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("is_"):
            return lambda: True

        def change(*args: Any, **kwargs: Any) -> Done:
            self.reached.append(name)
            return Done()

        return change


class Done:
    """What a change answers, whether it is awaited or not."""

    success = True
    message = ""

    def __await__(self) -> Iterator[Any]:
        return iter(())


class App(NamedTuple):
    """One that listens."""

    port: int
    manager: Manager

    def ask(
        self,
        method: str,
        path: str,
        headers: list[tuple[str, str]],
        body: bytes = b"{}",
        host: str | None = None,
    ) -> tuple[int, bytes, list[str]]:
        """The status, the answer with its headers, and what reached the schedulers."""
        self.manager.reached.clear()
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", f"127.0.0.1:{self.port}" if host is None else host)
        for name, value in [
            ("Content-Length", str(len(body))),
            ("Content-Type", "application/json"),
            *headers,
        ]:
            connection.putheader(name, value)
        connection.endheaders(body)
        reply = connection.getresponse()
        answer = reply.read() + str(reply.headers).encode()
        connection.close()
        return reply.status, answer, list(self.manager.reached)


@contextmanager
def listening(has: Keys, workers: int = 1, root_path: str = "") -> Iterator[App]:
    """SGLang's app as it serves with these keys, in a launcher or in one of several workers."""
    from sglang.srt.entrypoints import http_server
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils.auth import add_api_key_middleware

    flags = ["--model-path", str(MODEL), "--fastapi-root-path", root_path]
    flags += ["--api-key", has.api] if has.api else []
    flags += ["--admin-api-key", has.admin] if has.admin else []
    server_args = prepare_server_args(flags)
    manager = Manager(server_args)
    state = SimpleNamespace(tokenizer_manager=manager, template_manager=None, scheduler_info={})
    before, routes = http_server._global_state, http_server.app.router.routes
    http_server.set_global_state(state)
    app = FastAPI()
    app.router.routes = list(routes)
    stand_in = SimpleNamespace(app=app, _global_state=state, get_global_state=lambda: state)
    if workers > 1:
        http.add_routes_and_locks(stand_in, has)
    else:
        http.add_routes(stand_in, has)
        if has.given:  # as `_setup_and_run_http_server` goes on
            add_api_key_middleware(app, api_key=has.api, admin_api_key=has.admin)
    server = uvicorn.Server(
        uvicorn.Config(
            app, host="127.0.0.1", port=0, root_path=root_path, log_level="error", lifespan="on"
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.01)
    assert server.started, "it refused to serve"
    try:
        yield App(server.servers[0].sockets[0].getsockname()[1], manager)
    finally:
        server.should_exit = True
        thread.join()
        http_server.set_global_state(before)
        locks.below = ""
