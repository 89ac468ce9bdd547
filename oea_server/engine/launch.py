"""Judge SGLang's resolved arguments in the launcher, before it spawns anything.

Seam: BEFORE `ServerArgs.check_server_args`. `oea-server doctor` asks for the same judgement.
"""

from __future__ import annotations

import logging
import os
from typing import Any, NamedTuple

from oea_server.controller import goal
from oea_server.engine import (
    checkpoint,
    conflicts,
    int4,
    locks,
    materialise,
    model_card,
    options,
    overrides,
    proxies,
    runtime,
    shared_memory,
    threads,
    tier_start,
    workers,
)
from oea_server.engine.refuse import refuse
from oea_server.engine.steering import drafting_problem
from oea_server.observe import latency
from oea_server.settings import Settings

logger = logging.getLogger(__name__)


class Verdict(NamedTuple):
    """What a launch would come to, as far as its arguments and the model's config tell it."""

    problems: list[str]
    """Why the launch is refused, a line each; empty if it is served."""
    inactive: str | None
    """Why the launch would be served vanilla, None if by the policy."""
    card: model_card.ModelCard | None
    """None if the model's config cannot be read."""

    @property
    def doubt(self) -> str | None:
        """What only the routers that SGLang builds can tell."""
        if self.card is None:
            return "the model's config cannot be read"
        return self.card.doubt


def before_check_server_args(self: Any, *args: Any, **kwargs: Any) -> None:
    """Take the keys that are not on the command line; refuse a launch that would be inert or break
    a promise."""
    assert runtime.current is not None
    try:
        locks.take(self)
    except ValueError as error:
        refuse(str(error))
    locks.learn(self)
    proxies.spare(self)
    int4.steer(runtime.current.steering.settings, self)
    if found := judge(runtime.current.steering.settings, self).problems:
        refuse(*found)
    if not any(name in os.environ for name in runtime.current.steering.settings.environment()):
        logger.warning(UNASKED, runtime.current.steering.settings.policy)


UNASKED = (
    "OEA: oea-server is installed in this environment, so this SGLang server routes by policy %s,"
    " though nobody asked. To leave SGLang as it is: OEA_POLICY=vanilla, or pip uninstall"
    " oea-server. To ask for it: OEA_POLICY=oea"
)
"""Said to who starts SGLang by itself, without any knob of ours."""


def judge(settings: Settings, server_args: Any, elsewhere: bool = False) -> Verdict:
    """Whether these arguments can be served as the settings ask.

    Args:
        server_args: SGLang's `ServerArgs`, resolved.
        elsewhere: on another machine, so that this one's room for processes does not matter.
    """
    try:
        card = card_of(server_args)
    except overrides.OverrideError as error:
        return Verdict([str(error)], None, None)
    view = conflicts.resolved(server_args)
    found = [
        *(conflicts.find_in_server_args(server_args) if settings.policy != "vanilla" else []),
        *filter(None, [drafting_problem(settings, options.given(view.speculative_algorithm))]),
        *model_card.problems(settings, card),
        *runner_problems(settings, server_args),
        *checkpoint.problems(view.model_path, view.load_format),
        *latency.problems(settings.latency_line),
        *goal.problems(settings, view.tokenizer_worker_num, view.enable_metrics),
        *locks.problems(view),
        *tier_start.problems(settings, metrics=view.enable_metrics),
        *([] if elsewhere else [*threads.problems(view), *shared_memory.problems()]),
    ]
    return Verdict(found, inactive(settings, card) or workers.idle(view) or None, card)


def runner_problems(settings: Settings, server_args: Any) -> list[str]:
    """Whether the model's experts would choose by themselves, where that is known before they are
    built."""
    if settings.allow_inactive or settings.policy == "vanilla":
        return []
    view = conflicts.resolved(server_args)
    config = (
        model_card.in_sglang(server_args) or {}
        if view.moe_runner_backend == materialise.MXFP4
        else {}
    )
    problem = materialise.problem_of(
        view.moe_runner_backend, view.device, config.get("architectures") or ()
    )
    return [] if problem is None else [problem]


def inactive(settings: Settings, card: model_card.ModelCard | None) -> str | None:
    """Why a model that is served would be served vanilla."""
    if card is not None and card.problem is not None:
        return card.problem
    return f"the policy is {settings.policy}" if settings.policy in ("vanilla", "shadow") else None


def card_of(server_args: Any) -> model_card.ModelCard | None:
    """The model's card: its config.json, on disk or on the hub, or what SGLang makes of it.

    SGLang's own reading is asked for where the file leaves a doubt: it fills in defaults, and
    reads formats that have no config.json.

    Raises:
        OverrideError
    """
    view = conflicts.resolved(server_args)
    changes = overrides.override(view.json_model_override_args)
    if view.model_impl == "transformers":  # its modules, whatever the model is
        changes = {**changes, "architectures": ["TransformersMoEForCausalLM"]}
    config = model_card.local_config(view.model_path) or config_on_hub(view)
    card = None
    if config is not None:
        card = model_card.of(overrides.overridden(config, changes))
    if card is None or card.doubt is not None:
        config = model_card.in_sglang(server_args)
        return card if config is None else model_card.of(config)
    return card


def config_on_hub(view: Any) -> model_card.Config | None:
    """A hub name's config; None if it cannot be reached, or the path is a directory's."""
    from transformers import PretrainedConfig

    try:
        config, _ = PretrainedConfig.get_config_dict(view.model_path, revision=view.revision)
    except Exception:
        return None  # SGLang will say so in its own words
    return config or None
