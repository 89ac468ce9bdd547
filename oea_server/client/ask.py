"""One request to a server, with the server's key if there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import requests

from oea_server.client import way
from oea_server.oneline import oneline

TIMEOUT = 60.0
"""Seconds without a byte."""


def ask(
    method: str,
    url: str,
    key: str | None = None,
    *,
    json: Any = None,
    params: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
) -> requests.Response:
    """The server's answer, which may be a refusal.

    Raises:
        ValueError: the URL is none, a proxy could read the key, or another server is named as the
        one to ask. requests.RequestException: no answer.
    """
    proxy = way.proxy(url, key)
    with requests.Session() as session:
        session.trust_env = False
        session.proxies = {"http": proxy, "https": proxy} if proxy else {}
        session.verify = way.authorities() or True
        reply = session.request(
            method,
            url,
            json=json,
            params=params,
            auth=_bearer(key),
            timeout=timeout,
            allow_redirects=False,
        )
    if reply.is_redirect:
        where = oneline(reply.headers["location"])
        raise ValueError(
            f"{url}: is elsewhere, at {where}, says the server; no key is sent there unless you"
            " name it"
        )
    return reply


def _bearer(
    key: str | None,
) -> Callable[[requests.PreparedRequest], requests.PreparedRequest] | None:
    if not key:
        return None

    def add(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {key}"
        return request

    return add
