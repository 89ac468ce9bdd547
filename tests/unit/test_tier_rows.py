"""What becomes of each row of a step: a GPU's launches write down what the loop does. They run
natively on a GPU, else in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from oea_server.engine.tier_counts import recorded
from oea_server.routing import Policy, Router, fused, host
from oea_server.routing.device_tally import DeviceTally
from oea_server.routing.policy import EXACT
from oea_server.routing.tally import ALL, MASS_UNIT, HostTally

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROWS, EXPERTS, K, REAL = 9, 32, 4, 7
ASKED = torch.tensor([0, -EXACT, -3, 0, 0, -2, 0, 0, 0])


def logits() -> torch.Tensor:
    """Of two layers; a row of the second is broken."""
    found = torch.randn(2, ROWS, EXPERTS, generator=torch.Generator().manual_seed(3))
    found[1, 4] = torch.nan
    return found


@pytest.mark.parametrize(
    "policy", [Policy.oea(1), Policy.oea(3, share=0.2), Policy.pruned(2), Policy.vanilla()]
)
def test_both_write_down_the_same(policy: Policy) -> None:
    ours, loops = DeviceTally([0, 1], EXPERTS, 1, DEVICE), HostTally([0, 1], EXPERTS, 1)
    ours.by_step = True
    loops.watch(ROWS)
    for layer, given in enumerate(logits()):
        told: dict[str, Any] = {"num_real": REAL, "layer": layer}
        fused.route(
            given.to(DEVICE), policy, Router(K), row_k0=ASKED.to(DEVICE), tally=ours, **told
        )
        host.route(given, policy, Router(K), row_k0=ASKED, tally=loops, **told)
    expected = torch.from_numpy(loops.watched())[:, :REAL]
    assert ours.records is not None
    kept, guaranteed = (each.cpu() for each in recorded(ours.records, 0, REAL))
    assert torch.equal(guaranteed, expected[..., 1])
    assert (kept - expected[..., 0]).abs().max() <= 4
    assert kept[0, 1] == MASS_UNIT
    assert guaranteed[:, 1].tolist() == [K, K]
    assert kept[1, 4] == guaranteed[1, 4] == 0
    some = recorded(ours.records, 2, 3)
    assert torch.equal(some[0].cpu(), kept[:, 2:5])
    assert torch.equal(some[1].cpu(), guaranteed[:, 2:5])


def test_of_a_layer_that_sglang_routes_nothing_is_written_down() -> None:
    """In whichever step another has written in its place before."""
    tally, given = DeviceTally([0, 1], EXPERTS, 1, DEVICE), logits()
    tally.by_step = True
    for layer in (0, 1):
        fused.route(given[layer].to(DEVICE), Policy.oea(1), Router(K), layer=layer, tally=tally)
    ids = torch.zeros(ROWS, K, dtype=torch.int32, device=DEVICE)
    fused.route(given[0].to(DEVICE), Policy.oea(1), Router(K), layer=0, tally=tally)
    tally.add_vanilla(1, ids, None)
    assert tally.records is not None
    kept, guaranteed = recorded(tally.records, 0, ROWS)
    assert (kept[0] < MASS_UNIT).any()
    assert kept[1].tolist() == [MASS_UNIT] * ROWS
    assert guaranteed[1].tolist() == [ALL] * ROWS


def test_rows_that_there_is_no_room_for_end_it() -> None:
    tally = HostTally([0, 1], EXPERTS, 1)
    tally.watch(4)
    with pytest.raises(ValueError, match="more rows than there is room"):
        host.route(torch.randn(5, EXPERTS), Policy.oea(1), Router(K), tally=tally)
    tally.watch(6)
    host.route(torch.randn(5, EXPERTS), Policy.oea(1), Router(K), tally=tally)
    assert tally.watched()[0, 5].tolist() == [MASS_UNIT, ALL]
    assert tally.at[0][-2:] == (0, 0)
    assert int(tally.unique.sum()) == 1
