"""The way to a server: straight on this machine, else as the proxy variables say, unless a proxy
could read the key.

No HTTP library here may look into the environment by itself: that would also mean .netrc, whose
password would take the key's place, and a proxy for 127.0.0.1."""

from __future__ import annotations

import os
import socket
from ipaddress import IPv4Address
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy

from oea_server.addresses import address, is_localhost

AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables that name certificates to trust instead of those that come with Python."""


def proxy(url: str, key: str | None = None) -> str | None:
    """The proxy to reach a server by; None for none.

    Raises:
        ValueError: it is no URL of a server, or the proxy could read the key.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url}: not a server's URL, such as http://127.0.0.1:30000")
    if is_here(parts.hostname):
        return None
    found: str | None = select_proxy(url, get_environ_proxies(url))
    if not found:
        return None
    named: str = prepend_scheme_if_needed(found, "http")
    if key and parts.scheme == "http":
        by = urlsplit(named).hostname
        raise ValueError(
            f"{url}: the proxy {by} could read the key; use https, or name {parts.hostname} in"
            " no_proxy"
        )
    return named


def is_here(host: str) -> bool:
    """Whether a host can only be this machine: an address of loopback, however it is written, or
    localhost."""
    name = host.lower().removesuffix(".")
    found = address(name) or _spelled(name)
    # 0.0.0.0 is where servers listen, and reaches this machine, too
    return is_localhost(name) or (found is not None and (found.is_loopback or found.is_unspecified))


def _spelled(name: str) -> IPv4Address | None:
    try:
        return IPv4Address(socket.inet_aton(name))  # 127.1 and 0x7f000001, as connecting reads them
    except OSError:
        return None


def authorities() -> str | None:
    """A file or folder of certificates to trust, if a variable names one."""
    return next((path for name in AUTHORITIES if (path := os.environ.get(name))), None)
