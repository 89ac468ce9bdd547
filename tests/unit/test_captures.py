"""No CUDA call of the reporter's thread falls into the capture of a graph."""

from __future__ import annotations

import threading
from contextlib import suppress

from prometheus_client import CollectorRegistry

from oea_server.engine import captures
from oea_server.observe.metrics import Metrics
from oea_server.observe.reporter import Reporter
from tests.unit.counted import Scheduler


class Graph:
    """As `torch.cuda.CUDAGraph`, as far as captures go."""

    fails = False

    def capture_begin(self) -> None:
        if self.fails:
            raise RuntimeError("no capture")

    def capture_end(self) -> None:
        if self.fails:
            raise RuntimeError("invalidated")


def held() -> bool:
    """Whether another thread would have to wait."""
    got: list[bool] = []

    def probe() -> None:
        got.append(captures.ongoing.acquire(blocking=False))
        if got[0]:
            captures.ongoing.release()

    thread = threading.Thread(target=probe)
    thread.start()
    thread.join()
    return not got[0]


def test_every_capture_is_held_apart_and_a_failed_one_let_go() -> None:
    class Watched(Graph):
        pass

    captures.watch(Watched)
    captures.watch(Watched)  # a second model: once is enough
    graph = Watched()
    graph.capture_begin()
    assert held()
    graph.capture_end()
    assert not held()
    graph.capture_begin()
    graph.fails = True
    with suppress(RuntimeError):
        graph.capture_end()
    assert not held()
    with suppress(RuntimeError):
        graph.capture_begin()
    assert not held()


def test_a_report_waits_for_the_end_of_a_capture() -> None:
    scheduler = Scheduler()
    touched = threading.Event()
    read = scheduler.read_steps

    def read_steps() -> list[tuple[int, float]]:
        touched.set()
        return read()

    counted = scheduler.counted._replace(read_steps=read_steps, capturing=captures.ongoing)
    reporter = Reporter(Metrics(CollectorRegistry()), counted)
    thread = threading.Thread(target=reporter.report)
    with captures.ongoing:
        thread.start()
        assert not touched.wait(0.3)
    thread.join(10)
    assert touched.is_set()
