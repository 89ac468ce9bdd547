"""What is compiled for the routing: no fences, and one variant for all layers, counting or not."""

from __future__ import annotations

import re

import pytest
import torch

from oea_server.routing import Policy, Router, fused
from oea_server.routing.knobs import Knobs
from oea_server.routing.placement import contiguous
from oea_server.routing.tally import Tally
from tests.ptx.disassembly import opcodes
from tests.ptx.driver import Driver

CPU = torch.device("cpu")


@pytest.mark.parametrize("ranks", [1, 8])
def test_one_variant_without_fences(driver: Driver, ranks: int) -> None:
    """Layers' rows of the counters and of the knobs begin at addresses of different alignment."""
    layers = [0, 3, 4, 5]
    knobs, tally = Knobs(dict.fromkeys(layers, 8), 128, CPU), Tally(layers, 128, ranks, CPU)
    knobs.write(Policy.oea(3))
    for batch in (1, 16):
        given, count = (
            torch.zeros(batch, 128, dtype=torch.bfloat16),
            torch.tensor(batch, dtype=torch.int32),
        )
        place = contiguous(128, ranks, CPU) if ranks > 1 else None
        for layer in layers:
            for counter in (tally, None):
                fused.route(
                    given,
                    knobs,
                    Router(8),
                    num_real=count,
                    layer=layer,
                    tally=counter,
                    placement=place,
                )
    kernels = {
        made.compiled.hash: made.compiled
        for made in driver.launches
        if made.compiled.name == "route_kernel"
    }
    assert len(kernels) == 1
    for compiled in kernels.values():
        assert not re.search(r"\b(membar|fence)\b|acq_rel|acquire|release", compiled.ptx)
        code = opcodes(compiled.cubin)
        assert "EXIT" in code
        assert "MEMBAR" not in " ".join(code)
