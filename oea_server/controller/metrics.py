"""The controller's own series on `/metrics`. Fixed in number."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry

from oea_server.controller.keeper import Keeper
from oea_server.observe.metrics import Latest


class Metrics:
    """Series of the controller: its goal, its rung, and how far the time per token is off."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.on = Latest(
            "oea_controller_on",
            "1 while the controller steers, 0 while it does not",
            registry=registry,
        )
        self.rung = Latest(
            "oea_controller_rung",
            "The place of the rung that the controller has chosen; 0 is the safest",
            registry=registry,
        )
        self.target = Latest(
            "oea_controller_target_seconds",
            "Time between two tokens of a request that the controller is asked to hold (seconds)",
            registry=registry,
        )
        self.error = Latest(
            "oea_controller_error_ratio",
            "Time between two tokens in the controller's last measured period over its target,"
            " less 1",
            registry=registry,
        )
        self.saturated = Latest(
            "oea_controller_saturated",
            "1 while the controller misses its target and its quality floor allows nothing faster",
            registry=registry,
        )

    def write(self, keeper: Keeper) -> None:
        """Say what holds now."""
        last, on = keeper.last, keeper.mode == "on"
        self.target.set(keeper.asked.goal.tpot)
        self.on.set(on)
        self.rung.set(last.rung if on else 0)
        self.error.set(last.error or 0.0)
        self.saturated.set(on and last.saturated)
