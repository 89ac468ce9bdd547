"""Whose floor is what in a verify pass: a token's, a draft's, that of a request that wishes more;
recounted."""

from __future__ import annotations

import pytest
import torch

from oea_server.engine import runtime
from oea_server.engine.drafts import Drafts
from oea_server.routing.tally import ASSIGNMENTS, MASS_KEPT, MASS_UNIT, PIGGYBACKED, TOKENS
from oea_server.settings import Settings
from tests.engine.test_drafts import CHAIN, HIDDEN, TREE, WIDTH, accepted, end, verified
from tests.engine.test_wishes import EXACT_WISH, request

K, K0 = 4, 2
WISHES = {"nobody": (0, 0, 0), "exact": (0, K, 0), "both": (3, K, 0)}
"""Of its own top k, what each request wants guaranteed."""


def floors_of(
    logits: torch.Tensor, draft_k0: int | None, wishes: tuple[int, ...]
) -> list[list[int]]:
    """What each row is guaranteed."""
    found = []
    for row, best in enumerate(logits.topk(K).indices.tolist()):
        policys = K0 if row % WIDTH == 0 or draft_k0 is None else draft_k0
        found.append(best[: max(policys, wishes[row // WIDTH])])
    return found


@pytest.mark.parametrize("of", [CHAIN, TREE], ids=["chain", "tree"])
@pytest.mark.parametrize("draft_k0", [None, 1])
@pytest.mark.parametrize("wishes", WISHES.values(), ids=WISHES)
def test_experts_weights_and_counts_are_a_recount(
    now: runtime.Runtime, of: Drafts, draft_k0: int | None, wishes: tuple[int, ...]
) -> None:
    """The exact request keeps its token alone: what its drafts woke, all of their own top k, was
    for nothing."""
    now.steering.verifies = True
    assert now.steering.change(Settings(k0=str(K0), draft_k0=draft_k0)) is None
    torch.manual_seed(7)
    logits = torch.randn(3 * WIDTH, 16)
    asked = {0: None, 3: {"k0": 3}, K: EXACT_WISH}
    held = [request(f"r{i}", asked[wish]) for i, wish in enumerate(wishes)]
    chosen = verified(logits, of, len(held))
    end(accepted())

    floors, scores = floors_of(logits, draft_k0, wishes), logits.softmax(-1)
    taken, kept = 0, 0.0
    for row in range(len(logits)):
        pool = {
            expert
            for other in range(len(logits))
            if not HIDDEN[of](row, other)
            for expert in floors[other]
        }
        if len(floors[row]) == K:
            pool = set(floors[row])
        mine = sorted(pool, key=lambda expert: -float(logits[row, expert]))[:K]
        used = chosen.topk_weights[row] > 0
        assert chosen.topk_ids[row][used].tolist() == mine
        torch.testing.assert_close(
            chosen.topk_weights[row][used], scores[row][mine] / scores[row][mine].sum()
        )
        taken += len(mine)
        kept += float(scores[row][mine].sum() / scores[row].topk(K).values.sum())
    woken = set().union(*floors)
    served = set().union(*(floors[row] for row in accepted().flatten().tolist() if row >= 0))
    assert now.tally is not None
    assert now.tally.unique[0].nonzero().flatten().tolist() == [len(woken)]
    assert now.tally.verified.tolist() == [[int((accepted() >= 0).sum()), len(woken - served)]]
    sums = now.tally.sums[0]
    assert int(sums[TOKENS]) == len(logits)
    assert int(sums[ASSIGNMENTS]) == taken
    assert int(sums[PIGGYBACKED]) == taken - sum(map(len, floors))
    assert float(sums[MASS_KEPT]) / MASS_UNIT == pytest.approx(kept, abs=1e-4)
