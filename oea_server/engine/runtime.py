"""One process's routing state: what the settings ask, what the model allows, what runs now."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from oea_server.engine.routers import Router
from oea_server.engine.step import Step, StepClock
from oea_server.routing.eager import Routing
from oea_server.routing.fastest import way
from oea_server.routing.knobs import Knobs
from oea_server.routing.policy import Policy
from oea_server.routing.tally import Tally, tally_on
from oea_server.settings import Settings

logger = logging.getLogger(__name__)


class Runtime:
    """Set up once per scheduler process, when the model's modules exist and its weights don't."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.policy = Policy.vanilla()
        self.knobs: Knobs | None = None
        """The policy on the device, where graphs read it. None on the CPU, which has no graphs."""
        self.routers: dict[int, Router] = {}
        self.step: Step | None = None
        self.tally: Tally | None = None
        self.clock: StepClock | None = None
        self.num_experts = 0
        self.active = False
        self.reason = "no model yet"
        """Why routing is not ours: in no layer (not active), or in some."""
        self.frozen: str | None = "no model yet"
        """Why the settings cannot change, None if they can."""
        self._unhandled = ""
        self._pending: Policy | None = None
        self._num_real: torch.Tensor | None = None
        self._held = (-1, False)
        self._eager_rows: set[int] = set()

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
        self._unhandled = "; ".join(unhandled)
        if not self.routers:
            self.reason = self.frozen = self._unhandled or "the model has no experts to route"
            return [] if self.settings.policy == "vanilla" or self.settings.allow_inactive else [self.reason]
        if device.type != "cpu":
            ks = {layer: router.k for layer, router in sorted(self.routers.items())}
            self.knobs = Knobs(ks, num_experts, device)
        self.frozen = None
        if problem := self.change(self.settings):
            return [problem]
        self._take_effect()
        if device.type == "cpu":
            from oea_server.routing import host

            host.warm_up(next(iter(self.routers.values())).k, num_experts)
        handled = f"{len(self.routers)} of {len(routers)} MoE layers"
        logger.info("OEA: policy %s, k0 %s, on %s", self.policy.name, self.policy.k0, handled)
        return []

    def change(self, settings: Settings) -> str | None:
        """Route by `settings` from the next step on. Returns why not; then nothing has changed."""
        if self.frozen is not None:
            return self.frozen
        k = min(router.k for router in self.routers.values())
        try:
            policy = settings.policy_for(k)
            policy.check(k=k, num_experts=self.num_experts, k_max_bound=k)
        except ValueError as error:
            return str(error)
        self.settings, self._pending = settings, policy
        self.active = policy.name != "vanilla"
        self.reason = self._unhandled if self.active else "the policy is vanilla"
        return None

    def start_counting(self, physical_experts: int, ranks: int, device: torch.device, placed: bool = False) -> None:
        """Count what the steps wake (on the one rank that reports)."""
        self.tally = tally_on(device, sorted(self.routers), physical_experts, ranks, placed)
        self.clock = StepClock(device)

    @contextmanager
    def decoding(self, step: Step) -> Iterator[None]:
        """The layers that run inside this block belong to `step`."""
        self._take_effect()
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

    def is_vanilla(self, router: Router) -> bool:
        """Whether SGLang's own top k runs in this layer, in this step and in the graph captured now."""
        assert self.step is not None
        if self.step.capturing:
            # A graph with our launch in it follows the knobs, a graph without it is SGLang's to the bit.
            if self.settings.policy == "vanilla":
                self.frozen = "CUDA graphs were captured vanilla, without our routing; start with another policy"
            return self.settings.policy == "vanilla"
        return self.policy.is_vanilla(self.step.batch, router.layer, k=router.k, num_experts=self.num_experts)

    def route(self, router: Router, logits: torch.Tensor) -> Routing:
        """Choose the experts of this step's layer and count them. logits [rows, N]."""
        chosen = way(logits.device, len(logits), self.num_experts, router.k)
        if chosen.why and len(logits) not in self._eager_rows:
            self._eager_rows.add(len(logits))
            logger.warning("OEA: %d rows are routed in many launches instead of one: %s", len(logits), chosen.why)
        return chosen.route(
            logits,
            self.policy if self.knobs is None else self.knobs,
            k=router.k,
            renormalize=router.renormalize,
            num_real=self.num_real(len(logits)),
            layer=router.layer,
            tally=self.tally_of_step,
        )

    @property
    def tally_of_step(self) -> Tally | None:
        """Where this step counts; in a graph the device decides, at each replay."""
        assert self.step is not None
        return self.tally if self.step.counted or self.step.capturing else None

    def num_real(self, rows: int) -> int | torch.Tensor | None:
        """How many of `rows` are tokens: None for all; on the device where the knobs are."""
        assert self.step is not None
        if self.knobs is not None:
            return self._num_real
        return None if rows == self.step.batch else self.step.batch

    def _take_effect(self) -> None:
        """Write a change between two steps, on the stream that runs them."""
        if self._pending is None:
            return
        self.policy, self._pending = self._pending, None
        if self.knobs is not None:
            self.knobs.write(self.policy)

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
