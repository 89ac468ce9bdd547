"""Several HTTP workers: none ends the schedulers for the others; the process that started them
does, once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq.asyncio
from sglang.srt.managers.io_struct import FlushCacheReqInput, ShutdownReq
from sglang.srt.managers.multi_tokenizer_mixin import async_sock_recv

from oea_server.engine import last_worker, plugin


@pytest.mark.parametrize(
    ("several", "sent"), [(True, [FlushCacheReqInput]), (False, [FlushCacheReqInput, ShutdownReq])]
)
def test_only_a_lone_http_process_ends_the_schedulers(
    several: bool, sent: list[type], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "in_http_worker", several)
    seen: list[type] = []
    for request in (FlushCacheReqInput(), ShutdownReq()):
        last_worker.around_dispatch_to_scheduler(
            lambda _, each: seen.append(type(each)), None, request
        )
    assert seen == sent


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """As a `MultiTokenizerRouter` runs its own."""
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join()
    running.close()


@pytest.mark.parametrize(("workers", "asked"), [(1, False), (2, True)])
def test_once_all_workers_have_ended_the_schedulers_are_asked_to(
    workers: int, asked: bool, loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    async def sockets() -> tuple[Any, Any]:
        context = zmq.asyncio.Context.instance()
        pull, push = context.socket(zmq.PULL), context.socket(zmq.PUSH)
        push.connect(f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}")
        return pull, push

    pull, push = asyncio.run_coroutine_threadsafe(sockets(), loop).result(10)
    socket = tmp_path / "worker"
    socket.touch()
    router = SimpleNamespace(
        send_to_scheduler=push, _loop=loop, all_worker_ipcs={f"ipc://{socket}"}
    )
    last_worker.after_setup_and_run_http_server(
        None, SimpleNamespace(tokenizer_worker_num=workers), router
    )

    async def received() -> bool:
        try:
            return isinstance(
                await asyncio.wait_for(async_sock_recv(pull), 10 if asked else 0.5), ShutdownReq
            )
        except TimeoutError:
            return False
        finally:
            pull.close(0), push.close(0)

    assert asyncio.run_coroutine_threadsafe(received(), loop).result(20) == asked
    assert socket.exists() != asked
