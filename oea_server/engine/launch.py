"""Check SGLang's resolved arguments in the launcher, before it spawns anything.

Seam: BEFORE `ServerArgs.check_server_args`.
"""

from __future__ import annotations

import json
from typing import Any

from oea_server.engine import conflicts, model_card, runtime
from oea_server.engine.refuse import refuse
from oea_server.observe import latency
from oea_server.settings import Settings


def before_check_server_args(self: Any, *args: Any, **kwargs: Any) -> None:
    """Refuse a launch whose routing would be inert or break a promise."""
    assert runtime.current is not None
    if found := problems(runtime.current.settings, self, card_of(conflicts.resolved(self))):
        refuse(*found)


def problems(settings: Settings, server_args: Any, card: model_card.ModelCard | None) -> list[str]:
    """Why these arguments cannot be served as the settings ask; [] if they can."""
    clashes = conflicts.find_in_server_args(server_args) if settings.policy != "vanilla" else []
    return clashes + model_card.problems(settings, card) + latency.problems(settings.latency_line)


def card_of(server_args: Any) -> model_card.ModelCard | None:
    """The model's card from SGLang's arguments, fetching the config from the hub if need be."""
    overrides = server_args.json_model_override_args
    local = model_card.read_local(server_args.model_path, overrides)
    if local is not None:
        return local
    from transformers import PretrainedConfig

    try:
        config, _ = PretrainedConfig.get_config_dict(server_args.model_path, revision=server_args.revision)
    except Exception:
        return None  # not reachable, or not in this format: SGLang will say so in its own words
    return model_card.of(config | json.loads(overrides or "{}"))
