"""Tell the server's own warm-up requests from traffic.

Seam: BEFORE `TokenizerManager.generate_request`. Until the server is up, every request is warm-up;
its id says so to the schedulers, which are other processes.
"""

from __future__ import annotations

import uuid
from typing import Any

WARMUP_PREFIX = "OEA_WARMUP"


def before_generate_request(self: Any, obj: Any, *args: Any, **kwargs: Any) -> None:
    """Name requests that arrive before the server is up."""
    if self.server_status.name == "Starting" and obj.rid is None:
        obj.rid = f"{WARMUP_PREFIX}_{uuid.uuid4().hex}"
