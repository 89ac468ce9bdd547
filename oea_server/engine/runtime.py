"""One process's routing state: what the settings ask, what the model allows, what runs now."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch

from oea_server.engine import bypasses, captures, limits, model_card
from oea_server.engine.graphs import Graphs
from oea_server.engine.placed import Where, nowhere
from oea_server.engine.routers import Router
from oea_server.engine.rows import Rows
from oea_server.engine.steering import Facts, Steering
from oea_server.engine.step import Step, StepClock
from oea_server.routing.contract import Router as Rule
from oea_server.routing.contract import Routing
from oea_server.routing.fastest import way
from oea_server.routing.knobs import Knobs
from oea_server.routing.policy import Policy
from oea_server.routing.tally import Tally, tally_on
from oea_server.settings import Settings

logger = logging.getLogger(__name__)


class Runtime:
    """Set up once per scheduler process, when the model's modules exist and its weights don't."""

    def __init__(
        self, settings: Settings, real_rows: Callable[[torch.device], torch.Tensor] | None = None
    ) -> None:
        self.graphs = Graphs()
        self.steering = Steering(settings, self.graphs)
        self.policy = Policy.vanilla()
        self.shadow: Policy | None = None
        """What is only counted, beside the policy that serves."""
        self.knobs: Knobs | None = None
        """The policy on the device, where graphs read it. None on the CPU, which has no graphs."""
        self.shadow_knobs: Knobs | None = None
        self.rows = Rows(self.graphs, real_rows)
        self.where: Where = nowhere
        """Where the experts of a layer lie, for pools that know the ranks."""
        self.shadow_where: Where = nowhere
        self.routers: dict[int, Router] = {}
        self._rules: dict[int, tuple[torch.Tensor | None, Rule]] = {}
        self.step: Step | None = None
        self.tally: Tally | None = None
        self.shadow_tally: Tally | None = None
        self.clock: StepClock | None = None
        self.bypassed = Counter(dict.fromkeys(bypasses.BYPASSES, 0))
        self.num_experts = 0
        self.expert_bytes: dict[int, int] = {}
        """Of one expert, by layer: as created, and as its kernel reads it once weights are
        loaded."""
        self.device = torch.device("cpu")
        self.reports = True
        """Whether this rank counts for all. The others run the same kernels, with the counting
        off."""
        self.verified: Step | None = None
        """The counted step of which it is not known yet what drafts are kept, for
        `engine.rejected`."""
        self.awake: dict[int, tuple[Rule, torch.Tensor, torch.Tensor | None, torch.Tensor]] = {}
        """For each layer of the step that was routed here without a GPU: rule, logits, what rows
        asked for, and pool."""
        self._bypass: dict[tuple[int, int, int, tuple[int, ...]], str | None] = {}
        self._eager_rows: set[int] = set()

    @property
    def adopted(self) -> bool:
        """Whether a model was taken over; a process serves one."""
        return self.rows.adopted

    def adopt(
        self, routers: list[Router], num_experts: int, device: torch.device, k_elsewhere: int = 0
    ) -> list[str]:
        """Take over a model's routers. Returns why it cannot be served as asked: empty if it can.

        Args:
            k_elsewhere: the least top k in the other pipeline stages; 0 without any that has one.
        """
        self.num_experts, self.device = num_experts, device
        routers = [self._bounded(router) for router in routers]
        self.routers = {router.layer: router for router in routers if router.problem is None}
        self.rows.adopt(device)
        problems = Counter(router.problem for router in routers if router.problem is not None)
        steering = self.steering
        unhandled = "; ".join(
            f"{n} of {len(routers)} MoE layers run vanilla: {problem}"
            for problem, n in problems.items()
        )
        ks = {layer: router.k for layer, router in sorted(self.routers.items())}
        facts = Facts(
            min([*ks.values(), *filter(None, (k_elsewhere,))], default=0),
            num_experts,
            any(router.renormalize for router in self.routers.values()),
        )
        if not self.routers:
            nothing = (
                "this pipeline stage has no MoE layers"
                if k_elsewhere
                else "the model has no experts to route"
            )
            steering.reason = unhandled = unhandled or nothing
            steering.frozen = unhandled
            may_be_idle = steering.settings.policy == "vanilla" or steering.settings.allow_inactive
            if not may_be_idle and (routers or not k_elsewhere):
                return [f"{unhandled}; {model_card.ANYWAY}"]
            # other stages can be switched: all take it, or none
            problem = (
                steering.adopt(facts._replace(renormalize=True), unhandled) if k_elsewhere else None
            )
            return [problem] if problem else []
        if device.type != "cpu":
            self.knobs, self.shadow_knobs = (Knobs(ks, num_experts, device) for _ in range(2))
            self.rows.read_on_device()
        if problem := steering.adopt(facts, unhandled):
            return [problem]
        self._take_effect()
        if device.type == "cpu":
            from oea_server.routing import host

            host.warm_up(next(iter(self.routers.values())).k, num_experts)
        handled = f"{len(self.routers)} of {len(routers)} MoE layers"
        logger.info(
            "OEA: policy %s, k0 %s, on %s: %s",
            self.policy.name,
            self.policy.k0,
            handled,
            self.kinds,
        )
        return []

    @property
    def kinds(self) -> str:
        """The routers that are handled, in words."""
        return "; ".join(sorted({str(router) for router in self.routers.values()}))

    def _bounded(self, router: Router) -> Router:
        """A router that a GPU could only route in many launches has a problem."""
        if router.problem is None and (
            why := limits.problem_of(self.device, self.num_experts, router.k)
        ):
            return router._replace(problem=why)
        return router

    def start_counting(
        self,
        physical_experts: int,
        ranks: int,
        device: torch.device,
        placed: bool = False,
        expert_bytes: Mapping[int, int] | None = None,
        reports: bool = True,
    ) -> None:
        """Count what the steps wake.

        Args:
            reports: False on ranks that another one speaks for. On a GPU they have the same tally,
                off: all ranks must run the same compiled kernel, or they might choose differently.
        """
        self.reports = reports
        if not reports and device.type == "cpu":
            return
        layers = sorted(self.routers)
        self.tally = tally_on(device, layers, physical_experts, ranks, placed)
        self.shadow_tally = tally_on(device, layers, physical_experts, ranks, False)
        # a half's launch would write over what the other's has written down of the layer
        self.tally.by_step = self.shadow_tally.by_step = not self.rows.halved
        self.clock = StepClock(device) if reports else None
        self.expert_bytes = dict(expert_bytes or {})

    @contextmanager
    def decoding(self, step: Step) -> Iterator[None]:
        """The layers that run inside this block belong to `step`."""
        self._take_effect()
        self._tell_device(step)
        if step.capturing:
            self._capture(step)
        if step.counted and (
            why := self.bypass(step.batch, step.per_request, self.rows.padded(step), step.halves)
        ):
            self.bypassed[why] += 1
        self.step = step
        self.verified, self.awake = step if step.counted and step.per_request > 1 else None, {}
        clock = self.clock if step.counted else None
        start = clock.now() if clock else None
        try:
            with captures.ongoing if step.capturing else nullcontext():
                yield
        finally:
            self.step = None
        if clock:
            clock.lap(step, start)

    def is_vanilla(self, router: Router) -> bool:
        """Whether SGLang's own top k runs in this layer, in this step and in the graph captured
        now."""
        assert self.step is not None
        if self.beyond(self.rows.padded(self.step), router.k):
            return True
        if self.step.capturing:
            # A graph with our launch in it follows the knobs, a graph without it is SGLang's to the
            # bit.
            return self.graphs.held != "ours"
        requests = self.rows.requests(self.step)
        return self.policy.is_vanilla(
            requests, router.layer, k=router.k, num_experts=self.num_experts
        )

    def beyond(self, rows: int, k: int) -> str:
        """Which bound of the fused launch a step of so many rows is above on a GPU, empty if
        none."""
        return limits.beyond(self.device, rows, self.num_experts, k)

    def _capture(self, step: Step) -> None:
        size, each = step.of_ranks[0] if step.of_ranks else step.batch, step.per_request
        if self.graphs.capture(
            size, self.steering.settings, ranked=self.where is not nowhere, per_request=each
        ):
            self._bypass = {}
            self.rows.tell_anew()
            if why := self.beyond(step.batch, self.steering.facts.k):
                logger.info(
                    "OEA: the CUDA graph of %d rows holds SGLang's own top k: %s", step.batch, why
                )

    def bypass(
        self,
        batch: int,
        per_request: int = 1,
        rows: int | None = None,
        halves: tuple[int, ...] = (),
    ) -> str | None:
        """Why a decode step of `batch` rows is routed by the model's own top k in all layers, None
        if it isn't.

        Args:
            rows: what they are padded to; those of a graph, if not given.
            halves: those of each half, if each is routed by itself.
        """
        key = (
            batch,
            per_request,
            self.graphs.rows_of(batch, per_request) if rows is None else rows,
            halves,
        )
        if key not in self._bypass:
            self._bypass[key] = self._why_bypassed(*key)
        return self._bypass[key]

    def _why_bypassed(
        self, batch: int, per_request: int, rows: int, halves: tuple[int, ...]
    ) -> str | None:
        pools = {each // per_request for each in halves if each} or {batch // per_request}
        return bypasses.of_step(
            self.policy,
            self.routers.values(),
            self.num_experts,
            pools,
            lambda k: self.beyond(rows, k),
        )

    def route(self, router: Router, logits: torch.Tensor) -> Routing:
        """Choose the experts of this step's layer and count them. logits [rows, N]."""
        policy = self.policy if self.knobs is None else self.knobs
        routing = self._route(router, logits, policy, self.tally_of_step, self.where)
        if self.verified is not None and self.knobs is None:
            self.awake[router.layer] = (
                self._rule(router),
                logits,
                self.asked(len(logits)),
                routing.pool,
            )
        return routing

    def route_shadow(self, router: Router, logits: torch.Tensor) -> None:
        """Count what the shadow policy would choose in this step's layer, if there is one and it
        counts here."""
        if self.shadow is not None and self.tally_of_step is not None:
            knobs = self.shadow if self.shadow_knobs is None else self.shadow_knobs
            self._route(router, logits, knobs, self.shadow_tally, self.shadow_where)

    def _route(
        self,
        router: Router,
        logits: torch.Tensor,
        policy: Policy | Knobs,
        tally: Tally | None,
        where: Where,
    ) -> Routing:
        chosen = way(logits.device, len(logits), self.num_experts, router.k)
        if chosen.why and len(logits) not in self._eager_rows:
            self._eager_rows.add(len(logits))
            logger.warning(
                "OEA: %d rows are routed in many launches instead of one: %s",
                len(logits),
                chosen.why,
            )
        return chosen.route(
            logits,
            policy,
            self._rule(router),
            num_real=self.num_real(len(logits)),
            drafts=self.drafts(len(logits)),
            row_k0=self.asked(len(logits)),
            layer=router.layer,
            tally=tally,
            placement=where(router.layer),
        )

    def _rule(self, router: Router) -> Rule:
        """The router's rule: read once weights are loaded, and again where another bias is in the
        first's place."""
        if router.source is None:
            return router.rule
        bias = router.source.config.correction_bias
        kept = self._rules.get(router.layer)
        if kept is None or kept[0] is not bias:
            kept = self._rules[router.layer] = bias, router.rule
        return kept[1]

    @property
    def tally_of_step(self) -> Tally | None:
        """The tally that the step counts in. On a GPU always there, and the device decides, so that
        one kernel does for all steps, graphs and ranks; but not above its rows."""
        assert self.step is not None
        if self.knobs is None:
            # watched: of a rank whose rows another one counts
            return (
                self.tally
                if self.tally is not None and (self.step.counted or self.tally.watching)
                else None
            )
        return (
            None if self.beyond(self.rows.padded(self.step), self.steering.facts.k) else self.tally
        )

    def num_real(self, rows: int) -> int | torch.Tensor | None:
        """How many of `rows` are tokens in the step that runs now."""
        assert self.step is not None
        return self.rows.num_real(self.step, rows)

    def drafts(self, rows: int) -> torch.Tensor | None:
        """The rows that are drafts in the step that runs now."""
        assert self.step is not None
        return self.rows.drafts(self.step, rows)

    def asked(self, rows: int) -> torch.Tensor | None:
        """What each of `rows` asks for itself in the step that runs now."""
        assert self.step is not None
        return self.rows.asked(self.step, rows)

    def _take_effect(self) -> None:
        """Write a change between two steps, on the stream that runs them."""
        if (taken := self.steering.taken()) is None:
            return
        self.policy, self.shadow = taken
        self._bypass = {}
        self.rows.tell_anew()
        if self.knobs is not None:
            self.knobs.write(self.policy)
        if self.shadow_knobs is not None and self.shadow is not None:
            self.shadow_knobs.write(self.shadow)

    def _tell_device(self, step: Step) -> None:
        """Write what captured graphs read, on the stream that replays them; only what changed."""
        if not self.rows.tell_device(step):
            return
        if self.tally is not None:
            self.tally.counting.fill_(int(step.counted and self.reports))
        if self.shadow_tally is not None:
            self.shadow_tally.counting.fill_(
                int(step.counted and self.reports and self.shadow is not None)
            )


current: Runtime | None = None
"""The process's runtime, once the plug-in is active."""
