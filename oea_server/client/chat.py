"""The official client, for a server of ours."""

from __future__ import annotations

import os
import ssl
from typing import Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI

from oea_server.client import way

NO_KEY = "none"
"""A key for a server that asks for none: without one the client would send the user's
OPENAI_API_KEY."""


def client(url: str, key: str | None, timeout: float) -> OpenAI:
    """A client for one request after the other, which repeats none.

    Raises:
        ValueError: as `way.proxy`.
    """
    http = DefaultHttpxClient(**_way(url, key))
    return OpenAI(**_options(url, key, timeout), http_client=http)


def concurrent(url: str, key: str | None, timeout: float) -> AsyncOpenAI:
    """`chat` for many prompts at once.

    Raises:
        ValueError: as `way.proxy`.
    """
    http = DefaultAsyncHttpxClient(**_way(url, key))
    return AsyncOpenAI(**_options(url, key, timeout), http_client=http)


def _way(url: str, key: str | None) -> dict[str, Any]:
    path = way.authorities()
    verify: ssl.SSLContext | bool = True
    if path is not None:
        folder = os.path.isdir(path)
        verify = ssl.create_default_context(
            cafile=None if folder else path, capath=path if folder else None
        )
    return {
        "proxy": way.proxy(url, key),
        "trust_env": False,
        "verify": verify,
        "follow_redirects": False,
    }


def _options(url: str, key: str | None, timeout: float) -> dict[str, Any]:
    return {"base_url": f"{url}/v1", "api_key": key or NO_KEY, "max_retries": 0, "timeout": timeout}
