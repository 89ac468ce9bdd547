"""What `locust -f loadtest/locustfile.py` takes on top of Locust's own options; each also as
LOADTEST_…."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadtest import arrivals, gates, workload
from loadtest.arrivals import Arrivals
from loadtest.workload import Tenant

if TYPE_CHECKING:
    from locust.argument_parser import LocustArgumentParser

TENANTS = "chat prompt=fixed:32 output=fixed:64"


@dataclass(frozen=True, slots=True)
class Plan:
    """The options, checked.

    Args:
        arrivals: None for a closed loop.
        requests: how many this process sends before it stops; None for no end.
        share: (this process's number, processes): which of the arrivals are its own.
    """

    tenants: tuple[Tenant, ...]
    seed: int
    model: str
    temperature: float
    arrivals: Arrivals | None
    requests: int | None
    share: tuple[int, int]


def add(parser: LocustArgumentParser) -> None:
    """Add them to Locust's parser; times are in seconds."""

    def option(name: str, in_web_ui: bool = True, **settings: Any) -> None:
        variable = "LOADTEST_" + name.removeprefix("--").replace("-", "_").upper()
        parser.add_argument(name, env_var=variable, include_in_web_ui=in_web_ui, **settings)

    option(
        "--tenants",
        default=TENANTS,
        help=f"who asks what; several with ; between. A name, then any of: {workload.PARTS}",
    )
    option(
        "--open",
        default="",
        help=f"an open loop: {arrivals.FORMS}; users (-u) are then those that may be busy at once",
    )
    option("--seed", type=int, default=0, help="the same seed asks the same at the same times")
    option("--model", default="default", help="the model's name in each request")
    option("--temperature", type=float, default=1.0, help="0 is greedy")
    option(
        "--requests",
        type=int,
        default=0,
        help="stop when so many are answered; 0: when Locust's own -t says so",
    )
    option("--figures", False, default="", metavar="FILE", help="write what came out as JSON")
    option(
        "--max-failures",
        False,
        type=float,
        default=0.0,
        help="share of requests that may fail in a run that passes",
    )
    option(
        "--min-tokens-per-s",
        False,
        type=float,
        default=None,
        help="output tokens per second that a run needs to pass",
    )
    for attribute, time, statistic in gates.names():
        name = "--" + attribute.replace("_", "-")
        option(
            name,
            False,
            type=float,
            default=None,
            metavar="S",
            help=f"the {statistic} of {time} of a run that passes",
        )


def plan(options: Namespace, index: int) -> Plan:
    """Check them.

    Args:
        index: this process's among the workers.

    Raises:
        ValueError: one line: the option and what it may be.
    """
    tenants = tuple(workload.parse(part) for part in options.tenants.split(";") if part.strip())
    if not tenants:
        raise ValueError("--tenants: names none")
    if len({tenant.name for tenant in tenants}) < len(tenants):
        raise ValueError("--tenants: a name stands twice")
    workers = max(1, getattr(options, "loadtest_workers", 1))
    mine, total = max(index, 0), int(options.requests)
    if total < 0:
        raise ValueError("--requests: below 0")
    return Plan(
        tenants,
        int(options.seed),
        options.model,
        float(options.temperature),
        arrivals.parse(options.open) if options.open else None,
        total // workers + (mine < total % workers) if total else None,
        (mine, workers),
    )
