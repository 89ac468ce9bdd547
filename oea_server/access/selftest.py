"""What a server with a key asks itself before it serves: whether a request without the key is let
through.

Every request here changes nothing where it is let through: its body is no change.
"""

from __future__ import annotations

from oea_server.access import answers
from oea_server.access.answers import App, Scope
from oea_server.access.door import Door

LOCKED = (("PUT", "/oea/config"), ("POST", "/set_internal_state"), ("GET", "/server_info"))
"""Routes that need the key, one of each kind: ours, SGLang's, and what was open in SGLang."""
HOSTS = ("127.0.0.1:30000", "x/health?", "x/oea?")
"""An ordinary host, and two by which a starlette before 1.0.1 takes any path for one that is
free."""
SERVED = ("GET", "/v1/models")
"""What an API key locks besides."""


async def problem(door: Door, root_path: str) -> str | None:
    """Why a server with a key must not serve, None if it may: each route through the door, and past
    it."""
    if door.keys.control is None:
        return None
    app = door.app
    asked: list[tuple[App, str, str, str]] = [
        *((door, *each, HOSTS[0]) for each in LOCKED),
        *((app, *each, host) for each in LOCKED for host in HOSTS),
    ]
    if door.keys.api is not None:
        asked += [(app, *SERVED, host) for host in HOSTS]
    for way, method, path, host in asked:
        status = await answers.status(way, request(method, path, host, root_path), b"{}")
        if status != 401:
            return (
                f"{method} {path} without a key and with Host {host} is answered {status}, not 401:"
                " the key would lock nothing (starlette must be 1.0.1 or newer)"
            )
    return None


def request(method: str, path: str, host: str, root_path: str) -> Scope:
    """An HTTP request as uvicorn would hand it on."""
    path = root_path + path
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": root_path,
        "headers": [(b"host", host.encode()), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 30000),
        "state": {},
    }
