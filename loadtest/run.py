"""This process's part of a run: its plan, what it has sent, and what came of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from locust.env import Environment
from locust.exception import StopUser

from loadtest import options, words
from loadtest.figures import Figures
from loadtest.options import Plan
from loadtest.pool import Pool
from loadtest.stream import Stream

MS = 1e3


class Run:
    """From Locust's start to its stop.

    Args:
        finished: called when all requests that were asked for have ended.
    """

    def __init__(self, environment: Environment, finished: Callable[[Environment], None]) -> None:
        assert environment.runner is not None
        assert environment.parsed_options is not None
        self.environment = environment
        self._finished = finished
        self.plan: Plan = options.plan(
            environment.parsed_options, getattr(environment.runner, "worker_index", 0)
        )
        self.figures = Figures()
        words.running()  # read now, not within the first request's time
        self.users = itertools.count()
        self.begun = self.ended = 0
        arrivals, most = self.plan.arrivals, self.plan.requests
        self.pool = Pool(arrivals, self.plan.seed, self.plan.share, most) if arrivals else None

    def begin(self) -> None:
        """Before each request.

        Raises:
            StopUser: all that were asked for have begun.
        """
        if self.plan.requests is not None and self.begun >= self.plan.requests:
            raise StopUser
        self.begun += 1

    def end(self) -> None:
        """After each request."""
        self.ended += 1
        if self.ended == self.plan.requests:
            self._finished(self.environment)

    def fire(
        self,
        kind: str,
        tenant: str,
        seconds: float,
        length: int = 0,
        error: BaseException | None = None,
    ) -> None:
        self.environment.events.request.fire(
            request_type=kind,
            name=tenant,
            response_time=seconds * MS,
            response_length=length,
            exception=error,
            context={},
        )

    def answered(self, tenant: str, stream: Stream) -> None:
        """Events of a whole answer; the length of E2E is its tokens."""
        self.figures.answered(stream, time.time())
        for kind, seconds in (("TTFT", stream.ttft), ("TPOT", stream.tpot)):
            if seconds is not None:
                self.fire(kind, tenant, seconds)
        for gap in stream.gaps:
            self.fire("ITL", tenant, gap)
        self.fire("E2E", tenant, stream.e2e or 0.0, stream.tokens)
