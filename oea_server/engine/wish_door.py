"""Wishes at the door: one that is nonsense, or that this server cannot keep, is a 400 before
anything is scheduled. Where there are tiers, each request is given its own here.

Seam: BEFORE `TokenizerManager.generate_request`, which every request passes, with all of its batch.
A ValueError there is SGLang's own 400."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from oea_server.engine import model_card, runtime, tier_times, warmup, wish
from oea_server.settings import Settings
from oea_server.tiers import binding, table
from oea_server.tiers.binding import Binding

known: Callable[[], Mapping[str, Any] | None] | None = None
"""Reads `engine.control.state_of` as the schedulers wrote it last, a second ago at most; None of it
before they have. None where nobody reads what they write."""

bound = Binding()
"""What binds requests to tiers in this process."""


class View(NamedTuple):
    """What holds now, as far as this process knows."""

    k: int
    """The model's top k."""
    least: int
    """The k0 that every token is guaranteed."""
    tiers: Mapping[str, int]
    default: str | None


def before_generate_request(
    self: Any, obj: Any, request: Any = None, *args: Any, **kwargs: Any
) -> None:
    """Refuse a request whose wish cannot be kept; give the request its tier, where there are any.

    Raises:
        ValueError: one line: the field, what is there, what may be.
    """
    sampling, defaults = (
        getattr(obj, "sampling_params", None),
        getattr(self, "preferred_sampling_params", None) or {},
    )
    state = known() if known is not None else None
    if (settings_of_start().live() if state is None else state["settings"])["tiers"] is not None:
        admit(self, obj, request, sampling, defaults)
        return
    for each in sampling if isinstance(sampling, list) else [sampling]:
        wished = wish.of(
            {**defaults, **(each if isinstance(each, Mapping) else {})}.get("custom_params")
        )
        if wished and (problem := problem_of(view(self), wished)):
            raise ValueError(problem)


def admit(manager: Any, obj: Any, request: Any, sampling: Any, defaults: Mapping[str, Any]) -> None:
    """Give a request, or each of a batch, its tier: what it is promised is written into its
    `custom_params`.

    Raises:
        ValueError: as `oea_server.tiers.binding.admit`.
    """
    scope = getattr(request, "scope", None)
    own_request = scope is not None and (
        warmup.is_health_check(request) or warmup.is_warm_up(manager, request)
    )
    if own_request or type(obj).__name__ == "EmbeddingReqInput":
        return  # the server's own, and what decodes nothing
    now = view(manager)
    who = binding.asker(bound, () if scope is None else scope["headers"], now.default)
    written = []
    for each in sampling if isinstance(sampling, list) else [sampling]:
        own = each if isinstance(each, Mapping) else {}
        asks = own.get("custom_params")
        params = asks if asks is not None else defaults.get("custom_params")
        if isinstance(params, Mapping) and isinstance(params.get("oea"), wish.Admitted):
            written.append(own)  # it comes by a second time
            continue
        if params is not None and not isinstance(params, Mapping):
            raise ValueError(f"custom_params: {wish.shown(params)} is no object")
        tier = wish.tier_of(params)
        wished = wish.of(params, tiers=True) if tier is None else 0
        if wished and (problem := problem_of(now, wished)):
            raise ValueError(problem)
        # what the operator prefers for all is no client's wish
        asker = who if asks is not None else who._replace(bound=who.bound and who.asked is not None)
        got = binding.admit(now.tiers, asker, tier, wished, now.least)
        if got.tier is not None:
            tier_times.begin()
        # a dict of its own: SGLang builds later turns of a conversation from the one that it has
        written.append({**own, "custom_params": {**(params or {}), "oea": wish.Admitted.of(*got)}})
    obj.sampling_params = written if isinstance(sampling, list) else written[0]


def settings_of_start() -> Settings:
    """The settings that the process was started with."""
    assert runtime.current is not None
    return runtime.current.steering.settings


def view(manager: Any) -> View:
    """What holds now: as the schedulers say, else as this process was started.

    Args:
        manager: SGLang's `TokenizerManager`.
    """
    state, settings = known() if known is not None else None, settings_of_start()
    if state is not None:
        given = state["settings"]
        tiers = table.parse(given["tiers"])
        return View(
            int(state["model"]["top_k"]), int(state["least_k0"]), tiers, given["default_tier"]
        )
    k = model_card.of(manager.model_config.hf_config.to_dict()).k
    return View(k, settings.policy_for(k).least, table.parse(settings.tiers), settings.default_tier)


def problem_of(now: View, wished: int) -> str | None:
    """Why this server does not take a wish, None if it does."""
    floor = settings_of_start().wish_floor
    if floor is None:
        return wish.problem_of(wished, now.k, now.least, "which this server guarantees each token")
    return wish.problem_of(wished, now.k, min(now.least, floor), "the least that this server takes")
