"""What the routing may cost a layer, beside SGLang's own router. Instructions are counted, so the
bounds are exact: a change that costs more has to say so here."""

from __future__ import annotations

import pytest

from benchmarks.kernel_cost import cost
from tests.ptx.driver import Driver


@pytest.mark.parametrize(
    ("shape", "ratio"), [((16, 128, 8), 0.67), ((128, 128, 8), 1.03), ((64, 512, 8), 1.4)], ids=str
)
def test_executes_at_most_so_much_of_sglangs(shape: tuple[int, int, int], ratio: float) -> None:
    ours, theirs = (cost(kernel, *shape) for kernel in ("ours", "sglang"))
    assert ours.executed <= ratio * theirs.executed
    assert ours.membar == 0
    assert ours.spilled == 0


def test_the_launch_of_most_servers_is_small(driver: Driver) -> None:
    ours = cost("ours", 16, 128, 8)
    assert ours.sass <= 900
    assert ours.registers <= 64
