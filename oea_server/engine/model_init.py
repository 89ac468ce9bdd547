"""Take over the model's routers between its construction and the loading of its weights.

Seam: AFTER `sglang.srt.model_loader.loader._initialize_model`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import torch

from oea_server.engine import (
    agreement,
    compiling,
    conflicts,
    fronts,
    gathered,
    guard,
    limits,
    meeting,
    options,
    placed,
    plugin,
    routers,
    runtime,
    start_reporting,
    workers,
)
from oea_server.engine.materialise import materialise
from oea_server.engine.meeting import DisagreementError
from oea_server.engine.routers import Router
from oea_server.engine.runtime import Runtime

logger = logging.getLogger(__name__)


class Stage(NamedTuple):
    """What a pipeline stage holds."""

    num_experts: int
    """Experts of the stage's widest layer; 0 without MoE layers."""
    k: int
    """The least top k of the routers that can be handled; 0 without any."""


def after_initialize_model(model: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
    """Adopt the routers, or end the launch. Of the model itself changes only what would choose
    experts past us."""
    now = runtime.current
    device = next(model.parameters()).device
    if now is None or now.adopted or device.type == "meta":  # some loaders build a model twice
        return
    from sglang.srt.runtime_context import get_parallel

    ranks = get_parallel().moe_ep_size if torch.distributed.is_initialized() else 1
    found = taken_over(now, model, ranks)
    alone = now.rows.ranks is not None and not now.rows.ranks.together
    experts, zeros = routers.num_experts(model), routers.zero_experts(found)
    stages = agreed(now, found, Stage(experts, least_k(found, experts + zeros, device)))
    physical = max(stage.num_experts for stage in stages)
    k = min((stage.k for stage in stages if stage.k), default=0)
    if problems := now.adopt(found, physical - redundant_experts() + zeros, device, k_elsewhere=k):
        refuse_from_scheduler(*problems)
    if now.steering.frozen is None:
        now.steering.frozen = gathered.frozen()
    if alone:
        # what its own tokens take is known, not what all ranks' tokens read together
        logger.info(
            "OEA: each rank routes its own tokens, from a pool of its own: an all-to-all backend"
            " sends them on"
        )
        ranks = 1
    if now.rows.halved:
        logger.info("OEA: two-batch overlap: each half of a step from a pool of its own")
    if now.routers and ranks > 1:
        # two of each: what is only counted chooses copies of its own
        now.where, now.shadow_where = (where(now.num_experts, ranks, device) for _ in range(2))
    reports = start_reporting.is_reporting_rank()
    if now.routers:
        sizes = {} if alone else routers.expert_bytes(model)
        now.start_counting(physical, ranks, device, is_placed(), sizes, reports)
        compiling.compile_ahead(now, next(model.parameters()).dtype)
    if reports:
        start_reporting.start(now, next((i for i, stage in enumerate(stages) if stage.k), 0))


def after_load_model(result: Any, runner: Any, *args: Any, **kwargs: Any) -> None:
    """Bytes of an expert as its kernel reads it: some weights are of another format once they are
    loaded.

    Seam: AFTER `sglang.srt.model_executor.model_runner.ModelRunner.load_model`.
    """
    now = runtime.current
    if now is not None and now.expert_bytes and not runner.is_draft_worker:
        now.expert_bytes.update(
            routers.loaded(now.expert_bytes, routers.expert_bytes(runner.model))
        )


def taken_over(now: Runtime, model: torch.nn.Module, ranks: int) -> list[Router]:
    """The routers, once what would choose experts past them is turned off."""
    if now.steering.settings.policy != "vanilla":  # which is SGLang's to the bit
        fronts.turn_off(model)
        if count := materialise(model):
            logger.info(
                "OEA: %d routers choose experts ahead of their runner, else they would inside it",
                count,
            )
    return routers.on_one_rank(allowed(now, routers.inspect(model)), ranks)


def least_k(found: Sequence[Router], num_experts: int, device: torch.device) -> int:
    """The least top k of the routers that can be handled on this device; 0 if there are none."""
    handled = (router.k for router in found if router.problem is None)
    return min((k for k in handled if not limits.problem_of(device, num_experts, k)), default=0)


def agreed(now: Runtime, found: list[Router], stage: Stage) -> list[Stage]:
    """What every pipeline stage holds, in their order, if all ranks go by the same. Otherwise the
    launch ends.

    Before anything else that ranks do together: one without our plug-in would not come.
    """
    here = meeting.world()
    if here is None:
        now.steering.ranks_agree = True
        return [stage]
    about = agreement.about(now.steering.settings, found, stage.num_experts, now.steering.clash)
    try:
        answers = agreement.at_load(here, {**about, "holds": stage})
    except DisagreementError as error:
        refuse_from_scheduler(str(error))
    now.steering.ranks_agree = True
    return [Stage(*answer["holds"]) for answer in answers[:: here.width]]


def allowed(now: Runtime, found: list[Router]) -> list[Router]:
    """The routers as SGLang's options leave them to us: the launcher's own check once more, in each
    scheduler.

    A server that is started vanilla may have options that allow nothing else: it serves, and can be
    switched to nothing else. Where they hide which rows are tokens, its steps are not counted
    either."""
    if not found and not torch.distributed.is_initialized():
        return found  # nothing to route, and no other stage that has
    from sglang.srt.runtime_context import get_server_args

    server_args = get_server_args()
    now.steering.idle = workers.idle(conflicts.resolved(server_args))
    now.rows.halved = bool(
        getattr(conflicts.resolved(server_args), "enable_two_batch_overlap", False)
    )
    now.graphs.pads = not getattr(
        conflicts.resolved(server_args), "disable_cuda_graph_padding", False
    )
    if names := conflicts.unknown(server_args):
        logger.warning(
            "OEA: nobody has looked yet at what %s means for the rows of a step", ", ".join(names)
        )
    clashes, rows = conflicts.find_in_server_args(server_args), conflicts.about_rows(server_args)
    try:
        now.rows.ranks = gathered.ranks()
    except ValueError as error:
        clashes, rows = list(dict.fromkeys([*clashes, str(error)])), [*rows, str(error)]
    if clashes and now.steering.settings.policy != "vanilla":
        refuse_from_scheduler(*clashes)
    now.steering.clash = "; ".join(clashes)
    now.steering.verifies = options.given(
        getattr(conflicts.resolved(server_args), "speculative_algorithm", None)
    )
    return [each._replace(problem="; ".join(rows)) if rows else each for each in found]


def where(num_experts: int, ranks: int, device: torch.device) -> placed.Where:
    """Where experts lie, if pools may know: only hooks can tell SGLang which of several copies to
    read."""
    if not is_placed():
        return placed.in_order(num_experts, ranks, device)
    return (
        placed.nowhere
        if plugin.patched and redundant_experts()
        else placed.by_map(num_experts, ranks, device)
    )


def redundant_experts() -> int:
    """Replicas that EPLB keeps beside the model's own experts."""
    from sglang.srt.runtime_context import get_exec

    return int(get_exec().moe.ep_num_redundant_experts)


def is_placed() -> bool:
    """Whether experts may lie elsewhere than in their own order (EPLB)."""
    from sglang.srt.runtime_context import get_exec

    moe = get_exec().moe
    return bool(moe.enable_eplb or redundant_experts() or moe.init_expert_location != "trivial")


def refuse_from_scheduler(*problems: str) -> NoReturn:
    """End the whole server from a scheduler process before it serves."""
    guard.end(*problems, verb="refusing to start")
