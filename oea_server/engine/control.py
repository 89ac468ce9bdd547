"""Change the knobs of a running server, on all ranks, between two steps.

Seams: AROUND `Scheduler.set_internal_state` and AFTER `Scheduler.get_internal_state`, SGLang's own
way to all ranks: every rank of a group gets a request at the same place between two steps, checks
it, and hears what the others would make of it, so that all take it or none. It carries names with
numbers, so a text goes into the name: ``{"oea_k0": 3}``, ``{"oea_k0=1:8,16:3": 1}``,
``{"oea_policy=vanilla": 1}``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from oea_server import settings
from oea_server.engine import agreement, guard, meeting, runtime
from oea_server.engine.meeting import DisagreementError
from oea_server.oneline import LINE, oneline
from oea_server.settings import LIVE_PREFIX, Settings, SettingsError

logger = logging.getLogger(__name__)

refused = ""
"""The last refusal, until a change is taken."""


def around_set_internal_state(original: Callable[..., Any], self: Any, recv_req: Any) -> Any:
    """Take the changes that are ours; hand a request without any to SGLang."""
    global refused
    requested = recv_req.server_args
    if runtime.current is None or not any(name.startswith(LIVE_PREFIX) for name in requested):
        return original(self, recv_req)
    from sglang.srt.managers.io_struct import SetInternalStateReqOutput

    refused = oneline(change(runtime.current, requested) or "", LINE)
    if refused:
        logger.warning("OEA: change refused: %s", refused)
    return SetInternalStateReqOutput(updated=not refused)


def after_get_internal_state(answer: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """Show the settings in effect beside SGLang's own (`/server_info`)."""
    if runtime.current is not None:
        answer.internal_state["oea"] = {**state_of(runtime.current), "refused": refused}


BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


def state_of(now: runtime.Runtime) -> dict[str, Any]:
    """What is asked and what runs, in plain types: the body of `GET /oea/config`."""
    steering = now.steering
    # a change may come in between: no version may be ahead
    version, settings = steering.version, steering.settings
    k = steering.facts.k
    policy = settings.shadow_for(k) or settings.policy_for(k)

    numbers = {
        str(batch): policy.numbers(batch, -1, k=k, num_experts=now.num_experts)
        for batch in (BATCHES if now.routers else ())
    }
    return {
        "version": version,
        "settings": settings.live(),
        "started_with": steering.started_with.live(),
        "k0_by_batch": {batch: each.floor for batch, each in numbers.items()},
        "share_by_batch": {batch: each.share for batch, each in numbers.items()},
        "mix_by_batch": {batch: each.mix for batch, each in numbers.items()},
        "least_k0": settings.policy_for(k).least,
        "active": steering.active,
        "reason": steering.reason,
        "policies": list(steering.policies),
        "fixed": steering.fixed,
        "ranks_agree": steering.ranks_agree,
        "model": {
            "layers": len(now.routers),
            "num_experts": now.num_experts,
            "top_k": k,
            "renormalize": steering.facts.renormalize,
            "routers": now.kinds,
            "ranks": now.tally.ranks if now.tally is not None else 1,
            "expert_bytes": max(now.expert_bytes.values(), default=0),
            "pool_ranks": (
                now.rows.ranks.ranks
                if now.rows.ranks is not None and now.rows.ranks.together
                else 1
            ),
        },
    }


def change(now: runtime.Runtime, requested: Mapping[str, float]) -> str | None:
    """Apply all of the requested changes on all ranks, or say why none was."""
    theirs = [name for name in requested if not name.startswith(LIVE_PREFIX)]
    if theirs:
        return f"{', '.join(theirs)}: SGLang's own; ask for it by itself"
    before, after = now.steering.settings, None
    try:
        after = settings.changed(
            before, dict(knob(name, value) for name, value in requested.items())
        )
        problem = now.steering.problem_of(after)
    except SettingsError as error:
        problem = str(error)
    problem = clash_of_ranks(now, after, problem) or problem
    if problem or after is None:
        return problem
    now.steering.change(after)
    old, new = before.model_dump(), after.model_dump()
    changes = [f"{name} {old[name]} -> {new[name]}" for name in new if old[name] != new[name]]
    logger.info("OEA: settings changed: %s", oneline(", ".join(changes) or "nothing", LINE))
    return None


def clash_of_ranks(now: runtime.Runtime, after: Settings | None, problem: str | None) -> str | None:
    """Why the ranks do not take a change alike, None if they do. Ends the server if they were not
    alike before."""
    if now.steering.clash or now.steering.frozen:
        # nothing will be taken on any rank, and DP attention may bring a request to each in its own
        # time
        return None
    here = meeting.world()
    if here is None:
        return None
    now.steering.asked += 1
    outcome = {"refusal": problem or "none", **(agreement.knobs_of(after) if after else {})}
    try:
        return agreement.at_change(here, now.steering.asked, now.steering.settings, outcome)
    except DisagreementError as error:
        guard.end(str(error))


def knob(name: str, value: float) -> tuple[str, Any]:
    """One entry of the request as (field, value): ``oea_k0=1:8,16:3`` carries a text, ``=none``
    unsets."""
    field, is_text, text = name.removeprefix(LIVE_PREFIX).partition("=")
    if is_text:
        return field, None if text == "none" else text
    return field, int(value) if float(value).is_integer() else value
