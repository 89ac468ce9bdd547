"""Batch-aware expert routing for Mixture-of-Experts models: pure functions over tensors.

Knows torch and nothing of SGLang, so it can be called from any engine:

    from oea_server.routing import Policy, Router, route
    weights, ids, pool = route(router_logits, Policy.oea(k0=3), Router(k=8))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from oea_server.routing.policy import Numbers, Policy
from oea_server.routing.schedule import Schedule, default_schedule

if TYPE_CHECKING:
    from oea_server.routing.call import route
    from oea_server.routing.contract import Router, Routing

__all__ = ["Numbers", "Policy", "Router", "Routing", "Schedule", "default_schedule", "route"]

TORCHES = {"Router": "contract", "Routing": "contract", "route": "call"}
"""What needs torch, which takes seconds to import: the command line checks knobs without it."""


def __getattr__(name: str) -> Any:
    if name in TORCHES:
        return getattr(import_module(f"{__name__}.{TORCHES[name]}"), name)
    raise AttributeError(name)
