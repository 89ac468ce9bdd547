"""Wishes at the door: one that is nonsense, or that this server cannot keep, is a 400 before anything is scheduled.

Seam: BEFORE `TokenizerManager.generate_request`, which every request passes, with all of its batch. A ValueError there
is SGLang's own 400.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from oea_server.engine import model_card, runtime, wish

known: Callable[[], Mapping[str, Any] | None] | None = None
"""Reads `engine.control.state_of` as the schedulers wrote it last, a second ago at most; None of it before they have.
None where nobody reads what they write."""


def before_generate_request(self: Any, obj: Any, *args: Any, **kwargs: Any) -> None:
    """Refuse a request whose wish nobody could keep.

    Raises:
        ValueError: one line: the field, what is there, what may be.
    """
    sampling, defaults = getattr(obj, "sampling_params", None), getattr(self, "preferred_sampling_params", None) or {}
    for each in sampling if isinstance(sampling, list) else [sampling]:
        wished = wish.of({**defaults, **(each if isinstance(each, Mapping) else {})}.get("custom_params"))
        if wished and (problem := problem_of(self, wished)):
            raise ValueError(problem)


def problem_of(manager: Any, wished: int) -> str | None:
    """Why this server does not take a wish, None if it does.

    Args:
        manager: SGLang's `TokenizerManager`.
    """
    state = known() if known is not None else None
    assert runtime.current is not None
    settings = runtime.current.steering.settings
    if state is not None:
        k, least = int(state["model"]["top_k"]), int(state["least_k0"])
    else:
        k = model_card.of(manager.model_config.hf_config.to_dict()).k
        least = settings.policy_for(k).least
    if settings.wish_floor is None:
        return wish.problem_of(wished, k, least, "which this server guarantees each token")
    return wish.problem_of(wished, k, min(least, settings.wish_floor), "the least that this server takes")
