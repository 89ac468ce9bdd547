"""What wishes cost a decode step on the CPU: paired rounds of the same step, with and without what
looks for them.

    python benchmarks/wish_cost.py

A step is what this package does for it and no more: the seam around the forward pass, and the
routing of each layer. Rounds alternate, so a ratio is of two that ran side by side, in CPU time;
the interval is a bootstrap over rounds. `none` is a server where no request wishes anything,
against the same with the two places taken out that ask; `elsewhere` is one where a request of
another step does; `one` is a step with an exact request among its rows; `tiers` is one whose
requests all have a tier that promises nothing, so that what their rows keep is counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from sglang.srt.model_executor.forward_batch_info import ForwardMode

from oea_server.engine import forward_mode, runtime, wishers
from oea_server.engine.routers import Router
from oea_server.engine.wish import Carried
from oea_server.lab.records.stats import Interval, bootstrap
from oea_server.routing.policy import EXACT
from oea_server.settings import Settings

ROWS, EXPERTS, K, LAYERS = 16, 128, 8, 48
ROUNDS = 1500


def serving() -> runtime.Runtime:
    now = runtime.Runtime(Settings(k0="3"))
    assert (
        now.adopt(
            [Router(layer, K, True, None) for layer in range(LAYERS)], EXPERTS, torch.device("cpu")
        )
        == []
    )
    now.start_counting(EXPERTS, 1, torch.device("cpu"))
    return now


def seconds(step: Callable[[], None]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def longer(one: Callable[[], None], other: Callable[[], None]) -> Interval:
    """How much longer one takes than the other, in percent: median of the pairs, and 95 % of its
    bootstrap."""
    pairs = []
    for number in range(ROUNDS):
        first, second = (one, other) if number % 2 else (other, one)
        spent = {first: seconds(first), second: seconds(second)}
        pairs.append(100 * (spent[one] / spent[other] - 1))
    return bootstrap(np.median, pairs)


def main() -> None:
    torch.set_num_threads(1)
    now, logits = serving(), torch.randn(LAYERS, ROWS, EXPERTS)
    rids = [f"r{i}" for i in range(ROWS)]
    asks, elsewhere = SimpleNamespace(), SimpleNamespace()
    asks.oea_wish = elsewhere.oea_wish = EXACT
    look, asked, nobody = wishers.asking, runtime.Runtime.asked, wishers.tiered
    has = SimpleNamespace(oea_tier=Carried("bronze", 0))

    def step(asking: object = look, method: object = asked, tiered: object = nobody) -> None:
        wishers.asking, runtime.Runtime.asked = asking, method  # type: ignore[assignment,method-assign]
        wishers.tiered = tiered  # type: ignore[assignment]
        with forward_mode.running(now, ForwardMode.DECODE, ROWS, rids):
            for layer in range(LAYERS):
                now.route(now.routers[layer], logits[layer])

    kinds: dict[str, Callable[[], None]] = {
        "without": lambda: step(None, lambda self, rows: None),
        "none": step,
        "elsewhere": lambda: step({"other": elsewhere}),
        "one": lambda: step({"r5": asks}),
        "tiers": lambda: step(tiered=dict.fromkeys(rids, has)),
    }
    for kind in kinds.values():
        seconds(kind)
    print(
        f"{ROWS} rows, {EXPERTS} experts, top {K}, {LAYERS} layers; a step takes"
        f" {seconds(step) * 1e3:.2f} ms"
    )
    for one, other in (
        ("none", "without"),
        ("without", "without"),
        ("elsewhere", "none"),
        ("one", "none"),
        ("tiers", "none"),
    ):
        same = kinds[other] if one != other else (lambda: step(None, lambda self, rows: None))
        middle, low, high = longer(kinds[one], same)
        print(f"{one} against {other}: {middle:+.2f} % ({low:+.2f} to {high:+.2f})")


if __name__ == "__main__":
    main()
