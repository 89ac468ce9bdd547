"""Tell the server's own requests, its warm-up's and its health checks', from traffic.

Seam: BEFORE `TokenizerManager.generate_request`. Until the server is up, every request is warm-up; its id
says so to the schedulers, which are other processes. Nobody else's id may say so: its tokens would not count.
"""

from __future__ import annotations

import uuid
from typing import Any

WARMUP_PREFIX = "OEA_WARMUP"
HEALTH_CHECK_PREFIX = "HEALTH_CHECK"
"""`sglang.srt.constants.HEALTH_CHECK_RID_PREFIX`."""
OWN = (WARMUP_PREFIX, HEALTH_CHECK_PREFIX)


def before_generate_request(self: Any, obj: Any, request: Any = None, *args: Any, **kwargs: Any) -> None:
    """Name requests that arrive before the server is up.

    Raises:
        ValueError: a client's request is named as the server's own are; SGLang answers 400.
    """
    if obj.rid is None:
        if self.server_status.name == "Starting":
            obj.rid = f"{WARMUP_PREFIX}_{uuid.uuid4().hex}"
    elif request is not None and not is_health_check(request):
        given = obj.rid if isinstance(obj.rid, list) else [obj.rid]
        if any(str(each).startswith(OWN) for each in given):
            raise ValueError(f"rid: {' and '.join(OWN)} begin the ids of the server's own requests")


def is_health_check(request: Any) -> bool:
    """Whether a request is one to `/health` or `/health_generate`, below whatever root path."""
    path = str(request.scope.get("path", ""))
    return path.removeprefix(request.scope.get("root_path", "")).startswith("/health")
