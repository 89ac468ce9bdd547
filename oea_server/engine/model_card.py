"""What a checkpoint's config says about its routers, read before any weights load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from oea_server.settings import Settings


class ModelCard(NamedTuple):
    """The MoE part of a Hugging Face config; `problem` says why its routers cannot be handled."""

    num_experts: int = 0
    k: int = 0
    problem: str | None = None


NUM_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
TOP_K = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")


def read_local(model_path: str, overrides: str | None = None) -> ModelCard | None:
    """The card of a checkpoint on disk; None if there is no config to read yet (a hub name)."""
    path = Path(model_path) / "config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text()) | json.loads(overrides or "{}")
    except ValueError:
        return None  # SGLang has better words for a broken file
    return of(config)


def of(config: Mapping[str, Any]) -> ModelCard:
    """The card in a config. A first look only: the routers that SGLang builds have the last word."""
    text = config.get("text_config")
    if isinstance(text, Mapping):
        config = text
    num_experts = next((config[name] for name in NUM_EXPERTS if config.get(name)), 0)
    k = next((config[name] for name in TOP_K if config.get(name)), 0)
    model = config.get("model_type", "this model")
    if not num_experts or num_experts == 1:
        return ModelCard(problem=f"{model} has no experts to route")
    if (config.get("n_group") or 1) > 1:
        return ModelCard(num_experts, k, f"{model} routes by groups of experts, which is not supported yet")
    scoring = config.get("scoring_func") or config.get("moe_router_activation_func") or "softmax"
    if scoring != "softmax" or config.get("topk_method") == "noaux_tc":
        return ModelCard(num_experts, k, f"{model} routes by {scoring} scores and a bias, which is not supported yet")
    return ModelCard(num_experts, k)


def problems(settings: Settings, card: ModelCard | None) -> list[str]:
    """What the model's config already rules out; [] where it leaves the question open."""
    if card is None or settings.policy == "vanilla":
        return []
    if card.problem is not None:
        hint = "; --oea-allow-inactive serves it vanilla"
        return [] if settings.allow_inactive else [card.problem + hint]
    try:
        settings.check(k=card.k, num_experts=card.num_experts)
    except ValueError as error:
        return [str(error)]
    return []
