"""A router that is broken on purpose, while the server runs: a file names the fault, nothing in it
is none.

Vanilla is SGLang's own routing, and stays whole: faults meet candidates alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

PADS = 8
"""Rows on top of a step's own."""


def break_by(file: Path) -> None:
    """Plant whatever `file` names at the time: weights, floor, pads, rows."""
    from oea_server.engine.runtime import Runtime

    whole = Runtime.route

    def route(self: Runtime, router: Any, logits: Any) -> Any:
        fault = file.read_text().strip() if file.exists() else ""
        return FAULTS[fault](self, router, logits) if fault else whole(self, router, logits)

    def shifted(self: Runtime, router: Any, logits: Any) -> Any:
        """Each expert has the weight of its neighbour in the row."""
        routing = whole(self, router, logits)
        return routing._replace(weights=routing.weights.roll(1, dims=-1))

    FAULTS["weights"] = shifted
    FAULTS["floor"] = floor_off_by_one
    FAULTS["pads"] = pads_in_the_pool
    FAULTS["rows"] = rows_for_pads
    Runtime.route = route  # type: ignore[method-assign]


FAULTS: dict[str, Any] = {}


def again(self: Any, router: Any, logits: Any, **more: Any) -> Any:
    """What `Runtime.route` asks of the routing, with something else."""
    from oea_server.routing import route

    return route(
        logits,
        self.policy,
        self._rule(router),
        layer=router.layer,
        tally=self.tally_of_step,
        **more,
    )


def floor_off_by_one(self: Any, router: Any, logits: Any) -> Any:
    """One expert less than the policy guarantees, and never none."""
    import torch

    floor = self.policy.numbers(
        len(logits), router.layer, k=self.steering.facts.k, num_experts=self.num_experts
    ).floor
    return again(self, router, logits, row_k0=torch.full((len(logits),), max(int(floor) - 1, 1)))


def pads_in_the_pool(self: Any, router: Any, logits: Any) -> Any:
    """Rows that are no tokens have floors and are counted, as where nobody masks them."""
    import torch

    noise = torch.randn(
        PADS, logits.shape[1], generator=torch.Generator().manual_seed(router.layer)
    )
    routing = again(self, router, torch.cat([logits, noise.to(logits.dtype)]))
    return routing._replace(weights=routing.weights[: len(logits)], ids=routing.ids[: len(logits)])


def rows_for_pads(self: Any, router: Any, logits: Any) -> Any:
    """The second half of the tokens is taken for padding."""
    return again(self, router, logits, num_real=(len(logits) + 1) // 2)
