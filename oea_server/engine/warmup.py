"""The server's own requests, told from traffic: those of its warm-up and of its health checks.

Seam: BEFORE `TokenizerManager.generate_request`. The id of such a request says so to the
schedulers, which are other processes. Nobody else's id may say so: its tokens would not count.

SGLang's warm-up goes over HTTP. Of several workers each sends its own, and any may get it, one that
is up too: so what tells it is a word that only these processes know. Each start has another."""

from __future__ import annotations

import functools
import os
import secrets
import uuid
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

WARMUP_PREFIX = "OEA_WARMUP"
HEALTH_CHECK_PREFIX = "HEALTH_CHECK"
"""`sglang.srt.constants.HEALTH_CHECK_RID_PREFIX`."""
OWN = (WARMUP_PREFIX, HEALTH_CHECK_PREFIX)
HEADER = "x-oea-warm-up"
"""Where a warm-up's request has the word."""
VARIABLE = "_OEA_WARM_UP"
"""Where HTTP workers find the word; no knob."""


def before_generate_request(
    self: Any, obj: Any, request: Any = None, *args: Any, **kwargs: Any
) -> None:
    """Name the requests of the server's warm-up.

    Raises:
        ValueError: a client's request is named as the server's own are; SGLang answers 400.
    """
    if obj.rid is None:
        if is_warm_up(self, request):
            obj.rid = f"{WARMUP_PREFIX}_{uuid.uuid4().hex}"
    elif request is not None and not is_health_check(request):
        given = obj.rid if isinstance(obj.rid, list) else [obj.rid]
        if any(str(each).startswith(OWN) for each in given):
            raise ValueError(f"rid: {' and '.join(OWN)} begin the ids of the server's own requests")


def is_warm_up(manager: Any, request: Any) -> bool:
    """Whether a request has the word; one from inside (`--warmups`) belongs to it until the server
    is up."""
    if request is None:
        return bool(manager.server_status.name == "Starting")
    word = os.environ.get(VARIABLE)
    return word is not None and request.headers.get(HEADER) == word


def is_health_check(request: Any) -> bool:
    """Whether a request is one to `/health` or `/health_generate`, below whatever root path; gRPC
    has no paths."""
    scope = getattr(request, "scope", {})
    return str(scope.get("path", "")).removeprefix(scope.get("root_path", "")).startswith("/health")


def choose_word() -> None:
    """For this start; the HTTP workers that this process will spawn have it too."""
    os.environ[VARIABLE] = secrets.token_hex(16)


def sign(http_server: Any) -> None:
    """Have what `sglang.srt.entrypoints.http_server` sends to itself have the word."""
    word, requests = os.environ[VARIABLE], http_server.requests
    http_server.requests = SimpleNamespace(
        get=requests.get, post=signed(requests.post, word), exceptions=requests.exceptions
    )
    # of a server that only decodes, or only prefills
    if ask := getattr(http_server, "_send_disaggregation_warmup_requests", None):
        http_server._send_disaggregation_warmup_requests = signed(ask, word)


def signed(ask: Callable[..., Any], word: str) -> Callable[..., Any]:
    """A call that has `headers`, with the word among them."""

    @functools.wraps(ask)
    def call(*args: Any, headers: Mapping[str, str] | None = None, **more: Any) -> Any:
        return ask(*args, headers={**(headers or {}), HEADER: word}, **more)

    return call
