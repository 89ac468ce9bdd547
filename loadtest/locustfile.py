"""Locust's side: users that chat, and the events, figures and thresholds of a run.

    locust -f loadtest/locustfile.py --headless -u 16 -t 60s --host http://127.0.0.1:30000
    --ttft-p95 2 --tpot-p95 0.2

Locust's own time of a streamed request ends with its headers. Events of our own say TTFT, TPOT, ITL
and E2E, which Locust lists per tenant; they are milliseconds, as all of Locust's."""

from __future__ import annotations

import itertools
import json
import logging
import time
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]
from geventhttpclient._parser import HTTPParseError
from locust import User, events, task
from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from loadtest import gates, options, wire, workload
from loadtest.figures import Figures
from loadtest.run import Run
from loadtest.stream import StreamError

logger = logging.getLogger(__name__)

FINISHED = "loadtest_finished"
BROKEN = (StreamError, OSError, HTTPParseError, gevent.Timeout)


run: Run | None = None
whole = Figures()
"""Of all workers, in their master; of this process elsewhere, when a run has ended."""
done = 0
"""Workers that have sent all they should."""


class Chat(User):
    """In a closed loop a user has one conversation after the other; in an open loop, one with each
    arrival."""

    def on_start(self) -> None:
        assert run is not None
        assert self.host is not None
        self.mine = run
        self.name = f"{run.plan.share[0]}.{next(run.users)}"
        self.client = wire.connect(self.host)
        self.numbers = itertools.count()

    def on_stop(self) -> None:
        self.client.close()

    @task
    def converse(self) -> None:
        plan, due = self.mine.plan, None
        if self.mine.pool is None:
            tenant = workload.pick(plan.tenants, plan.seed, self.name)
            asks = workload.conversation(tenant, plan.seed, self.name, next(self.numbers))
        else:
            number, due = self.mine.pool.take()
            tenant = workload.pick(plan.tenants, plan.seed, number)
            asks = workload.conversation(tenant, plan.seed, "arrival", number)
            self.mine.figures.times["late"].add(time.perf_counter() - due)
        ask: workload.Ask | None = next(asks)
        while ask is not None:
            answer = self.ask(tenant, ask, due)
            due = None  # the next turns follow when they can
            ask = None if answer is None else workload.following(asks, answer)

    def ask(self, tenant: workload.Tenant, ask: workload.Ask, due: float | None) -> str | None:
        """One request; the answer's text, or None if it failed."""
        figures, plan = self.mine.figures, self.mine.plan
        self.mine.begin()
        body = ask.body(plan.model, plan.temperature)
        sent = time.perf_counter() if due is None else due
        try:
            stream, to_the_end = wire.chat(
                self.client, str(self.host), body, tenant.key, sent, ask.cancel_after
            )
        except BROKEN as error:
            figures.failed(f"{type(error).__name__}: {error}"[:200])
            self.mine.fire("E2E", tenant.name, time.perf_counter() - sent, error=error)
            gevent.sleep(0.05)  # a server that is gone is not asked in a tight loop
            self.mine.end()
            return None
        except gevent.GreenletExit:
            figures.counts["cut"] += 1
            raise
        if to_the_end:
            self.mine.answered(tenant.name, stream)
        else:
            figures.counts["cancelled"] += 1
            self.mine.fire("CANCEL", tenant.name, time.perf_counter() - sent)
        self.mine.end()
        return stream.text


def on_parser(parser: Any) -> None:
    options.add(parser)


def on_init(environment: Environment, **_: Any) -> None:
    if environment.parsed_options is not None and not isinstance(environment.runner, WorkerRunner):
        try:
            options.plan(environment.parsed_options, 0)
        except ValueError as error:
            raise SystemExit(f"loadtest: {error}") from None
    if isinstance(environment.runner, MasterRunner):
        environment.runner.register_message(FINISHED, on_finished)


def on_start(environment: Environment, **_: Any) -> None:
    global run, whole, done
    whole, done = Figures(), 0
    if isinstance(environment.runner, MasterRunner):
        # goes to the workers with the options
        vars(environment.parsed_options)["loadtest_workers"] = environment.runner.worker_count
    else:
        run = Run(environment, finished)
        if run.plan.requests == 0:  # fewer requests than workers
            finished(environment)


def on_stop(environment: Environment, **_: Any) -> None:
    if run is not None and run.pool is not None:
        run.figures.counts["cut"] += run.pool.close()


def on_report(client_id: str, data: dict[str, Any], **_: Any) -> None:
    if run is not None:
        data["loadtest"] = run.figures.packed()
        run.figures = Figures()


def on_worker_report(client_id: str, data: dict[str, Any], **_: Any) -> None:
    if "loadtest" in data:
        whole.merge(Figures.unpacked(data["loadtest"]))


def finished(environment: Environment) -> None:
    """All requests of this process are answered."""
    if isinstance(environment.runner, WorkerRunner):
        environment.runner.send_message(FINISHED)
    elif isinstance(environment.runner, LocalRunner):
        gevent.spawn(environment.runner.quit)  # not from a user, which it ends


def on_finished(environment: Environment, msg: Any, **_: Any) -> None:
    global done
    done += 1
    if isinstance(environment.runner, MasterRunner) and done >= environment.runner.worker_count:
        gevent.spawn(environment.runner.quit)


def on_quitting(environment: Environment, **_: Any) -> None:
    """Say what came out, and fail the run if a threshold was missed."""
    if environment.runner is None or isinstance(environment.runner, WorkerRunner):
        return
    environment.runner.quit()  # ends what still runs, and hears the workers' last figures
    if run is not None:
        whole.merge(run.figures)
    given = vars(environment.parsed_options)
    missed = gates.misses(whole, given)
    summary = {**whole.summary(), "missed": missed}
    print(json.dumps(summary, indent=1))
    if given["figures"]:
        Path(given["figures"]).write_text(json.dumps(summary, indent=1) + "\n")
    for line in missed:
        logger.error("missed: %s", line)
    environment.process_exit_code = 1 if missed else 0


events.init_command_line_parser.add_listener(on_parser)
events.init.add_listener(on_init)
events.test_start.add_listener(on_start)
events.test_stop.add_listener(on_stop)
events.report_to_master.add_listener(on_report)
events.worker_report.add_listener(on_worker_report)
events.quitting.add_listener(on_quitting)
