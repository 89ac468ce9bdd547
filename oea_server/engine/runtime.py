"""One process's routing state: what the settings ask, what the model allows, what runs now."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from oea_server.engine.routers import Router
from oea_server.engine.step import Step, StepClock
from oea_server.routing.policy import Policy
from oea_server.routing.tally import Tally
from oea_server.settings import Settings

logger = logging.getLogger(__name__)


class Runtime:
    """Set up once per scheduler process, when the model's modules exist and its weights don't."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.policy = Policy.vanilla()
        self.routers: dict[int, Router] = {}
        self.step: Step | None = None
        self.tally: Tally | None = None
        self.clock: StepClock | None = None
        self.num_experts = 0
        self.active = False
        self.reason = "no model yet"
        """Why routing is not ours: in no layer (not active), or in some."""
        self._num_real: torch.Tensor | None = None
        self._held = (-1, False)

    @property
    def adopted(self) -> bool:
        """Whether a model was taken over; a process serves one."""
        return self._num_real is not None

    def adopt(self, routers: list[Router], num_experts: int, device: torch.device) -> list[str]:
        """Take over a model's routers. Returns why it cannot be served as asked: empty if it can."""
        self.num_experts = num_experts
        self.routers = {router.layer: router for router in routers if router.problem is None}
        self._num_real = torch.zeros((), dtype=torch.int32, device=device)
        problems = Counter(router.problem for router in routers if router.problem is not None)
        unhandled = [f"{n} of {len(routers)} MoE layers run vanilla: {problem}" for problem, n in problems.items()]
        self.reason = "; ".join(unhandled)
        if not self.routers:
            self.reason = self.reason or "the model has no experts to route"
            return [] if self.settings.policy == "vanilla" or self.settings.allow_inactive else [self.reason]
        k = min(router.k for router in self.routers.values())
        try:
            self.policy = self.settings.policy_for(k)
            self.policy.check(k=k, num_experts=num_experts, k_max_bound=k)
        except ValueError as error:
            return [str(error)]
        self.active = self.policy.name != "vanilla"
        if not self.active:
            self.reason = "the policy is vanilla"
        handled = f"{len(self.routers)} of {len(routers)} MoE layers"
        logger.info("OEA: policy %s, k0 %s, on %s", self.policy.name, self.policy.k0, handled)
        return []

    def start_counting(self, physical_experts: int, ranks: int, device: torch.device) -> None:
        """Count what the steps wake (on the one rank that reports)."""
        self.tally = Tally(sorted(self.routers), physical_experts, ranks, device)
        self.clock = StepClock(device)

    @contextmanager
    def decoding(self, step: Step) -> Iterator[None]:
        """The layers that run inside this block belong to `step`."""
        self._tell_device(step)
        self.step = step
        clock = self.clock if step.counted else None
        start = clock.now() if clock else None
        try:
            yield
        finally:
            self.step = None
        if clock:
            clock.lap(step.batch, start)

    def num_real(self, rows: int) -> int | torch.Tensor | None:
        """How many of `rows` are tokens: None for all; on the device while a graph is captured."""
        assert self.step is not None
        if self.step.capturing:
            return self._num_real
        return None if rows == self.step.batch else self.step.batch

    def is_vanilla(self, router: Router) -> bool:
        """Whether the step's choice in this layer is certainly the model's own top k."""
        assert self.step is not None
        possible = range(1, self.step.batch + 1) if self.step.capturing else (self.step.batch,)
        return all(
            self.policy.is_vanilla(batch, router.layer, k=router.k, num_experts=self.num_experts) for batch in possible
        )

    def _tell_device(self, step: Step) -> None:
        """Write what captured graphs read, on the stream that replays them; only what changed."""
        if self._num_real is None or self._held == (step.batch, step.counted):
            return
        self._num_real.fill_(step.batch)
        if self.tally is not None:
            self.tally.counting.fill_(int(step.counted))
        self._held = (step.batch, step.counted)


current: Runtime | None = None
"""This process's runtime, once the plug-in is active."""
