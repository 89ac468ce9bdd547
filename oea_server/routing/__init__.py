"""Batch-aware expert routing for Mixture-of-Experts models: pure functions over tensors.

Knows torch and nothing of SGLang, so it can be called from any engine:

    from oea_server.routing import Policy, route
    weights, ids, pool = route(router_logits, Policy.oea(k0=3), k=8)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oea_server.routing.policy import Numbers, Policy
from oea_server.routing.schedule import Schedule, default_schedule

if TYPE_CHECKING:
    from oea_server.routing.eager import Routing, route

__all__ = ["Numbers", "Policy", "Routing", "Schedule", "default_schedule", "route"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and the command line checks knobs without it
    if name in ("Routing", "route"):
        from oea_server.routing import eager

        return getattr(eager, name)
    raise AttributeError(name)
