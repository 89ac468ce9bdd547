"""Where a request comes from: the name it was sent to, the page that sent it, the machine that it
left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from oea_server.access.answers import Scope
from oea_server.addresses import address, is_localhost

PEER = "oea.peer"
"""In a scope: (address, port) of the other end of the socket, whatever its headers claim."""

HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
"""A name or an address, and a port. Old starlettes build the path that is judged out of anything
else."""


def values(scope: Scope, name: bytes) -> list[str]:
    """What a request's headers of a name say."""
    return [value.decode("latin-1") for header, value in scope["headers"] if header.lower() == name]


def odd_host(scope: Scope) -> bool:
    """Whether a request names its host in a way that no client does; HTTP/1.0 need not name it."""
    hosts = values(scope, b"host")
    return len(hosts) > 1 or any(HOST.fullmatch(host) is None for host in hosts)


def foreign(scope: Scope) -> str | None:
    """The other origin that a browser says a request comes from, None if from ours or from no page.

    A page cannot write Sec-Fetch-Site, and behind a proxy that renames the host it is what still
    holds."""
    sites = values(scope, b"sec-fetch-site")
    if sites == ["same-origin"]:
        return None
    if sites and sites != ["none"]:
        return sites[0]
    hosts = values(scope, b"host")
    others = [origin for origin in values(scope, b"origin") if not _same(origin, hosts)]
    return others[0] if others else None


def _same(origin: str, hosts: Sequence[str]) -> bool:
    """Whether an origin is the host that was asked; "null", an origin without a name, never is."""
    try:
        there = urlsplit(origin)
        default = {"http": 80, "https": 443}[there.scheme]
        ours = [urlsplit(f"//{host}") for host in hosts]
        return [(each.hostname, each.port or default) for each in ours] == [
            (there.hostname, there.port or default)
        ]
    except (KeyError, ValueError):
        return False


def from_this_machine(scope: Scope) -> bool:
    """Whether only a process of this machine can have sent a request.

    Two things hold. The other end, and each client that a proxy names, is loopback or our own
    address. The host is no name that others can point here (DNS rebinding)."""
    ends = [
        end[0] if end else "" for end in (scope.get(PEER, scope.get("client")), scope.get("client"))
    ]
    claims = [
        claim for name in FORWARDED for value in values(scope, name) for claim in value.split(",")
    ]
    own = (scope.get("server") or ("",))[0]
    return all(_local(each.strip(), own) for each in ends + claims) and all(
        _no_foreign_name(host) for host in values(scope, b"host")
    )


FORWARDED = (b"x-forwarded-for", b"x-real-ip", b"forwarded")
"""Headers in which proxies say for whom they speak. The last one's grammar is its own: it passes
for nobody."""


def printable(name: bytes, value: bytes) -> bytes:
    """A header's value for logs, with `?` for what no address has."""
    return NO_ADDRESS.sub(b"?", value) if name.lower() in FORWARDED else value


NO_ADDRESS = re.compile(rb"[^0-9A-Za-z.:,;=\[\]\"/ _-]")


def _local(end: str, own: str | None) -> bool:
    ip = address(end)
    return ip is not None and (ip.is_loopback or (own is not None and ip == address(own)))


def _no_foreign_name(host: str) -> bool:
    name = urlsplit(f"http://{host}").hostname or ""
    return is_localhost(name) or address(name) is not None
