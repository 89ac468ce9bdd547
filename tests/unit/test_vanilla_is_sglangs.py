"""Under vanilla the experts are those of SGLang's own routers, for every kind of router, on float32
logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sglang.srt.layers.moe import topk

from oea_server.routing import Policy, Router, eager, host

ROWS = 512
SHAPES = [(256, 8, 8, 4), (160, 6, 8, 3), (64, 6, 8, 3), (256, 8, 1, 1), (384, 8, 1, 1)]


def plain(function: Any) -> Any:
    """Without `torch.compile`."""
    return getattr(function, "_torchdynamo_orig_callable", function)


def compare(router: Router, given: torch.Tensor, theirs: tuple[torch.Tensor, torch.Tensor]) -> None:
    ids, order = theirs[1].long().sort(dim=1)
    weights = theirs[0].gather(1, order)
    for route in (host.route, eager.route):
        ours = route(given, Policy.vanilla(), router)
        our_ids, our_order = ours.ids.long().sort(dim=1)
        assert torch.equal(our_ids, ids)
        torch.testing.assert_close(ours.weights.gather(1, our_order), weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("num_experts", "k", "groups", "kept"), SHAPES)
def test_ids_and_weights(num_experts: int, k: int, groups: int, kept: int) -> None:
    dice = torch.Generator().manual_seed(num_experts)
    given, bias = (
        torch.randn(ROWS, num_experts, generator=dice),
        torch.randn(num_experts, generator=dice) * 0.3,
    )
    hidden = torch.zeros(ROWS, 1)
    scaled = {"routed_scaling_factor": 2.5, "apply_routed_scaling_factor_on_output": True}

    theirs = plain(topk.biased_grouped_topk_impl)(
        hidden, given, bias, k, True, groups, kept, **scaled
    )
    compare(Router(k, True, "sigmoid", bias, groups, kept, "top2", 2.5), given, theirs)
    for scoring in ("softmax", "sigmoid"):
        theirs = plain(topk.grouped_topk_gpu)(
            hidden, given, k, False, groups, kept, scoring_func=scoring
        )
        compare(Router(k, False, scoring, None, groups, kept, "max"), given, theirs)  # type: ignore[arg-type]
    for scoring in ("softmax", "sigmoid", "sqrtsoftplus"):
        for chosen_by in (None, bias):
            theirs = topk.fused_topk_torch_native(hidden, given, k, True, chosen_by, scoring)
            compare(Router(k, scoring=scoring, bias=chosen_by), given, theirs)  # type: ignore[arg-type]
    theirs = plain(topk.biased_topk_impl)(hidden, given, bias, k, True, "sqrtsoftplus")
    compare(Router(k, scoring="sqrtsoftplus", bias=bias), given, theirs)
