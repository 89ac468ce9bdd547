"""SGLang's keys, and the door before its HTTP app.

Seams: AROUND `sglang.srt.utils.auth.decide_request_auth`, for the page, which a browser must be
able to load before anybody can type a key into it, and for probes under a root path; BEFORE
`uvicorn.middleware.proxy_headers.ProxyHeadersMiddleware.__call__`, which overwrites the peer."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

from oea_server.access import keys, mask, origin, selftest
from oea_server.access.door import Door
from oea_server.access.keys import Keys
from oea_server.engine import plugin, wish_door
from oea_server.engine.refuse import refuse
from oea_server.tiers import binding

logger = logging.getLogger(__name__)

UNMARKED = (
    "/server_info",
    "/get_server_info",
    "/set_trace_level",
    "/load_lora_adapter_from_tensors",
)
"""Routes that SGLang forgot to mark as an admin's, some of them up to a release."""

NO_DOOR = ("smg_grpc_mode", "grpc_mode", "grpc_port", "encoder_only")
"""Options with which SGLang serves by another way than its HTTP app."""
RUST = "SGLANG_RUST_SERVER"

STARLETTE = (1, 0, 1)
"""CVE-2026-48710: older ones judge a path that the Host header wrote."""

below = ""
"""The app's root path (`--fastapi-root-path`), once the app starts."""


def take(server_args: Any) -> None:
    """Add the keys that the environment names to SGLang's arguments, where these name none.

    Raises:
        ValueError: one line: the variable, and what is wrong with what it names.
    """
    named = {"admin_api_key": keys.admin(os.environ), "api_key": keys.api(os.environ)}
    write(
        server_args,
        {name: key for name, key in named.items() if key and getattr(server_args, name) is None},
    )


def write(server_args: Any, fields: dict[str, str | None]) -> None:
    """Set fields of arguments that SGLang has sealed, and in what it is to publish of them."""
    import msgspec

    # a dataclass up to 0.5.21
    record = msgspec.Struct if isinstance(server_args, msgspec.Struct) else object
    for name, value in fields.items():
        record.__setattr__(server_args, name, value)
    decided = getattr(server_args, "_resolved_overrides", None)  # the last one counts
    if isinstance(decided, list) and fields:
        decided.append(("oea-server", fields))


def problems(view: Any) -> list[str]:
    """Why a launch with these (resolved) arguments could not keep its keys."""
    flags = {"--api-key": view.api_key, "--admin-api-key": view.admin_api_key}
    found = [
        f"{flag}: {wrong}"
        for flag, key in flags.items()
        if key is not None and (wrong := keys.problem(key))
    ]
    if view.api_key or view.admin_api_key:
        others = [f"--{name.replace('_', '-')}" for name in NO_DOOR if getattr(view, name, False)]
        others += [RUST] if os.environ.get(RUST, "").lower() in ("1", "true", "yes", "on") else []
        found += [
            f"{other}: SGLang asks for no key there; unset the key, or this" for other in others
        ]
        if old := old_starlette():
            found.append(old)
    return found


def old_starlette() -> str | None:
    """Why no key can be kept with the starlette that is installed, None if it can."""
    installed = version("starlette")
    if tuple(int(part) for part in installed.split(".")[:3] if part.isdigit()) >= STARLETTE:
        return None
    return (
        f"starlette {installed}: a Host header voids every key before 1.0.1 (CVE-2026-48710);"
        " pip install 'starlette>=1.0.1'"
    )


def learn(view: Any) -> None:
    """Keep the keys of these arguments out of this process's log from now on."""
    has = Keys(view.api_key, view.admin_api_key)
    mask.mask_log(has.given)
    if any(key in word for key in has.given for word in sys.argv):
        logger.warning(
            "OEA: the process list shows a key of the command line; %s and %s do not",
            *keys.VARIABLES[:2],
        )


def mark(app: Any) -> None:
    """Mark the routes that SGLang forgot."""
    from sglang.srt.utils import auth

    for route in leaves(app):
        if getattr(route, "path", None) in UNMARKED:
            route.endpoint._auth_level = auth.AuthLevel.ADMIN_OPTIONAL


def leaves(parent: Any) -> Iterator[Any]:
    """The routes of an app, those of routers that it includes as well: there SGLang finds no
    marks."""
    for route in parent.routes:
        inner = getattr(route, "original_router", None)
        yield from [route] if inner is None else leaves(inner)


def put_door(http_server: Any, has: Keys) -> None:
    """Put the door before all of SGLang's app, whatever middleware it gets until it is served."""
    from sglang.srt.utils.auth import AuthLevel

    from oea_server.observe.routes import CONFIG

    app = http_server.app
    mark(app)
    marks = (AuthLevel.ADMIN_OPTIONAL, AuthLevel.ADMIN_FORCE)
    control = [
        route for route in leaves(app) if getattr(route.endpoint, "_auth_level", None) in marks
    ]
    if not any(route.path == CONFIG for route in control):
        refuse(
            f"PUT {CONFIG} is not marked as an admin's: anybody could change the knobs; unset the"
            " key, or serve with an SGLang that is supported (oea-server doctor)"
        )
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: Door(build(), has, control, partial(ask, http_server))


async def ask(http_server: Any, door: Door) -> None:
    """End the launch if a client without the key would be let through."""
    global below
    below = http_server.get_global_state().tokenizer_manager.server_args.fastapi_root_path
    if (problem := await selftest.problem(door, below)) is None:
        return
    if plugin.in_http_worker:  # SGLang's launcher would start it anew
        os.kill(os.getppid(), signal.SIGQUIT)
    refuse(problem)


def around_decide_request_auth(
    original: Any, *, path: str, authorization_header: str | None, **kwargs: Any
) -> Any:
    """Let every client load the page, without its numbers; those need the key. Judge paths below
    the root path."""
    from sglang.srt.utils.auth import AuthDecision, AuthLevel

    from oea_server.observe.routes import PAGE

    path = path.removeprefix(below)
    if kwargs["method"] == "GET" and path == PAGE:
        return AuthDecision(allowed=True)
    if authorization_header is not None and kwargs["auth_level"] == AuthLevel.NORMAL:
        given = authorization_header.encode("latin-1")
        if binding.knows(wish_door.bound, [(b"authorization", given)]):
            return AuthDecision(allowed=True)  # who is bound to a tier is served
    if authorization_header is not None and not authorization_header.isascii():
        authorization_header = None  # SGLang would raise
    return original(path=path, authorization_header=authorization_header, **kwargs)


def before_proxy_headers(self: Any, scope: Any, *args: Any, **kwargs: Any) -> None:
    """Keep the peer, before what a header claims takes its place, in uvicorn's log as well."""
    if "client" in scope:
        scope[origin.PEER] = scope["client"]
        scope["headers"] = [
            (name, origin.printable(name, value)) for name, value in scope["headers"]
        ]
