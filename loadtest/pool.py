"""An open loop over a pool of users: arrivals come by the clock and wait for a user that is
free."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

import gevent  # type: ignore[import-untyped]
from gevent.queue import Queue  # type: ignore[import-untyped]

from loadtest.arrivals import Arrivals


class Pool:
    """Arrivals of this process: those whose number falls to it.

    The clock of a request starts when it should have been sent. A pool that is too small thus shows
    in the times rather than thins the load out; how late requests were sent is kept as well.

    Args:
        share: (this process's number, processes).
        most: arrivals after which no more come; None for no end.
    """

    def __init__(
        self, arrivals: Arrivals, seed: int, share: tuple[int, int], most: int | None
    ) -> None:
        self._queue: Queue = Queue()
        self._times = self._mine(arrivals.times(seed), share, most)
        self._sender = gevent.spawn(self._send)

    @staticmethod
    def _mine(
        times: Iterator[float], share: tuple[int, int], most: int | None
    ) -> Iterator[tuple[int, float]]:
        index, count = share
        sent = 0
        for number, time in enumerate(times):
            if number % count == index:
                if sent == most:
                    return
                sent += 1
                yield number, time

    def _send(self) -> None:
        start = perf_counter()
        for number, time in self._times:
            due = start + time
            gevent.sleep(max(0.0, due - perf_counter()))
            self._queue.put((number, due))

    def take(self) -> tuple[int, float]:
        """The next arrival's number, and when it was due; waits for it."""
        number, due = self._queue.get()
        return number, due

    def close(self) -> int:
        """No more arrivals. How many waited in vain for a user."""
        self._sender.kill()
        return int(self._queue.qsize())
