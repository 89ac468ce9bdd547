"""The schedulers outlive all HTTP workers: a worker that has nothing left to answer does not end
them for the others.

In SGLang each of several workers (`--tokenizer-worker-num`) that was asked to end sends the
schedulers `ShutdownReq` once its own requests are answered; from then on another worker's stream
stands still.

Seams: AROUND `TokenizerManager._dispatch_to_scheduler`, in HTTP workers; AFTER
`sglang.srt.entrypoints.http_server._setup_and_run_http_server`, in the process that started them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from oea_server.engine import leftovers, plugin

PATIENCE = 15.0
"""Seconds for schedulers to let go of their memory, as `TokenizerManager.sigterm_watchdog` gives
them."""


def around_dispatch_to_scheduler(
    original: Callable[[Any, Any], None], manager: Any, request: Any
) -> None:
    """Every request of a worker, but for its wish that schedulers end."""
    if plugin.in_http_worker:
        from sglang.srt.managers.io_struct import ShutdownReq

        if isinstance(request, ShutdownReq):
            return
    original(manager, request)


def after_setup_and_run_http_server(
    result: None, server_args: Any, tokenizer_manager: Any, *args: Any, **kwargs: Any
) -> None:
    """Ask the schedulers to end, now that every worker has, and wait for them; remove the workers'
    sockets."""
    if server_args.tokenizer_worker_num > 1:
        shut_down(tokenizer_manager)
        leftovers.remove(leftovers.files(tokenizer_manager.all_worker_ipcs), ())


def shut_down(router: Any) -> None:
    """Have a `MultiTokenizerRouter` send what the workers left out."""
    from sglang.srt.managers.io_struct import ShutdownReq, async_sock_send
    from sglang.srt.utils.cudacore_pyspy_dump_utils import collect_scheduler_processes

    sent = async_sock_send(router.send_to_scheduler, ShutdownReq())
    asyncio.run_coroutine_threadsafe(sent, router._loop).result(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while collect_scheduler_processes() and time.monotonic() < deadline:
        time.sleep(0.1)
