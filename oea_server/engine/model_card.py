"""What a checkpoint's config says about its routers, read before any weights load."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from oea_server.engine import architectures
from oea_server.engine.overrides import NUM_EXPERTS, TEXT, TOP_K, overridden, override
from oea_server.engine.router_traits import unsupported
from oea_server.settings import Settings

Config = Mapping[str, Any]


class ModelCard(NamedTuple):
    """The MoE part of a Hugging Face config; `problem` says why its routers cannot be handled."""

    num_experts: int = 0
    k: int = 0
    """Experts per token; the least of them, if layers differ. 0 if the config does not say."""
    problem: str | None = None
    doubt: str | None = None
    """What only the built routers can tell; None if the config tells it all."""


OTHER_PARTS = re.compile("vision|visual|audio|talker|code2wav|projector|draft|quantization")
COUNTS_EXPERTS = re.compile("expert|moe_?(num|top|k$)")
ANYWAY = "--oea-allow-inactive serves it vanilla"
"""What can be done about a model of which no router can be handled."""
"""Names by which a config may count experts in a way that is not listed above."""


def read_local(model_path: str, overrides: str | None = None) -> ModelCard | None:
    """The card of a checkpoint on disk; None if there is no config to read yet (a hub name).

    Raises:
        OverrideError
    """
    changes = override(overrides)
    config = local_config(model_path)
    return None if config is None else of(overridden(config, changes))


def local_config(model_path: str) -> Config | None:
    """A checkpoint's config.json; None where there is none or it is broken."""
    try:
        config = json.loads((Path(model_path) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # SGLang has better words for a broken file
    return config if isinstance(config, dict) else None


def of(config: Config) -> ModelCard:
    """The card in a config. A first look only: the routers that SGLang builds decide."""
    model = config.get("model_type") or "this model"
    parts = list(sections(config))
    part = next((part for part in parts if _number(part, NUM_EXPERTS, max) > 1), None)
    if part is None:
        named = any(name in part for part in parts for name in NUM_EXPERTS)
        if named or not any(_may_count_experts(part) for part in parts):
            return ModelCard(problem=f"{model} has no experts to route")
        return ModelCard(doubt=f"{model} names its experts in a way that is not known here")
    num_experts = _number(part, NUM_EXPERTS, max)
    k = next((k for each in (part, *parts) if (k := _number(each, TOP_K, min))), 0)
    architecture = architecture_of(config)
    if not architectures.blocks_of(architecture, part):
        doubt = f"{architecture or model} is not in the table of SGLang's models"
        return ModelCard(num_experts, k, doubt=doubt)
    traits = architectures.traits_of(architecture, part)
    if traits is None:
        return ModelCard(num_experts, k, doubt=f"{architecture} builds one of several routers")
    # nothing that SGLang serves: judged as any version builds it
    if not config.get("architectures"):
        traits = traits._replace(knows_layer=True)
    why = unsupported(traits)
    if why is not None:
        return ModelCard(num_experts, k, f"{model} {why}")
    unknown = f"{model} names its top k in a way that is not known here"
    return ModelCard(num_experts, k, doubt=None if k else unknown)


def architecture_of(config: Config) -> str:
    """The architecture that SGLang builds; "" if the config names none that is known."""
    named = config.get("architectures")
    if isinstance(named, list) and named:
        return str(named[0])
    kinds = {_spelling(name): name for name in architectures.ARCHITECTURES}
    return kinds.get(_spelling(str(config.get("model_type", ""))), "")


def sections(config: Config) -> Iterator[Config]:
    """A config and the configs inside it: the language model's, then those around it, then
    others."""
    chain = [config]
    while inner := next((part for name in TEXT if _is_part(part := chain[-1].get(name))), None):
        chain.append(inner)
    yield from reversed(chain)
    waiting = [(name, part) for each in chain for name, part in each.items()]
    for name, part in waiting:
        if _is_part(part) and not OTHER_PARTS.search(str(name)):
            if not any(part is each for each in chain):
                yield part
            waiting += part.items()


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value)


def _number(config: Config, names: tuple[str, ...], pick: Any) -> int:
    """The first of the names that has a number or a list of numbers, one per layer; 0 if none."""
    for name in names:
        value = config.get(name)
        values = value if isinstance(value, list | tuple) else [value]
        numbers = [each for each in values if type(each) is int and each > 0]
        if numbers:
            return int(pick(numbers))
    return 0


def _may_count_experts(config: Config) -> bool:
    names = [str(name) for name in config]  # those of a built config's id2label are numbers
    return any(COUNTS_EXPERTS.search(name) and _number(config, (name,), max) > 1 for name in names)


def _spelling(name: str) -> str:
    return re.sub("for(causallm|conditionalgeneration)|_", "", name.lower())


def problems(settings: Settings, card: ModelCard | None) -> list[str]:
    """What the model's config already rules out; [] where it leaves the question open."""
    if card is None:
        return []
    if card.problem is not None:
        served = settings.allow_inactive or settings.policy == "vanilla"
        return [] if served else [f"{card.problem}; {ANYWAY}"]
    if card.doubt is not None:
        return []
    try:
        # whatever the policy: it can be switched while serving
        settings.check(k=card.k, num_experts=card.num_experts)
        settings.check_new(card.k)
    except ValueError as error:
        return [str(error)]
    return []


def in_sglang(server_args: Any) -> Config | None:
    """The config that SGLang built, overrides included; None if it could not."""
    try:
        try:
            from sglang.srt.arg_groups.model_override_base import model_config_of
        except ImportError:  # 0.5.17
            built = server_args.get_model_config()
        else:
            built = model_config_of(server_args)
        config: Config = built.hf_config.to_dict()
    except Exception:
        return None
    return config
