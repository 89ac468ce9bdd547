"""`--json-model-override-args` as SGLang reads it, and what of it SGLang would end on with a
traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from oea_server.oneline import oneline

Config = Mapping[str, Any]
FLAG = "--json-model-override-args"

NUM_EXPERTS = (
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "moe_num_experts",
    "num_routed_experts",
)
TOP_K = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_topk",
    "moe_top_k",
    "moe_k",
    "top_k_experts",
)
TEXT = ("thinker_config", "llm_config", "language_config", "text_config")
"""Where SGLang looks for the language model, in its order (`get_hf_text_config`)."""


EXAMPLE = '{"num_experts_per_tok": 4}'


class OverrideError(ValueError):
    """What SGLang would not take: one line."""


def override(text: str | None) -> Config:
    """What is empty in Python changes nothing, as in SGLang.

    Raises:
        OverrideError
    """
    if text is None:
        return {}
    shown = f"{FLAG}={oneline(text, 100)}"
    try:
        changes = json.loads(text)
    except json.JSONDecodeError as error:
        raise OverrideError(f"{shown}: not JSON: {error}") from None
    except (ValueError, RecursionError) as error:  # a number too long, brackets too deep
        raise OverrideError(f"{shown}: not JSON that can be read: {error}") from None
    if changes and not isinstance(changes, dict):
        raise OverrideError(f"{shown}: not a JSON object, as {EXAMPLE}")
    for problem in problems(changes or {}):
        raise OverrideError(f"{FLAG}: {oneline(problem)}")
    return changes or {}


def problems(changes: Config) -> Iterator[str]:
    """Overrides of a wrong kind, among those that are read here."""
    for name, value in changes.items():
        said = f"{name}={json.dumps(value)[:60]}"
        if name in NUM_EXPERTS + TOP_K and not _counts(value):
            yield f"{said}: not a whole number, nor one for each layer"
        elif name in TEXT and not isinstance(value, dict):
            yield f"{said}: not an object, as the model's part of that name is"
        elif name == "architectures" and not _names(value):
            yield f"{said}: not a list of names"
        elif name == "model_type" and not isinstance(value, str):
            yield f"{said}: not a name"
        elif name in TEXT:
            yield from problems(value)


def overridden(config: Config, changes: Config) -> Config:
    """A config with changes in it: the fields of a nested config are changed one by one."""
    both = {name: (config.get(name), value) for name, value in changes.items()}
    return {**config} | {
        name: (
            {**before, **after}
            if isinstance(before, Mapping) and isinstance(after, Mapping)
            else after
        )
        for name, (before, after) in both.items()
    }


def _counts(value: object) -> bool:
    """Whether a value can be a number of experts; null leaves the number to the model's class."""
    values = value if isinstance(value, list) and value else [value]
    return value is None or all(type(each) is int and each >= 0 for each in values)


def _names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)
