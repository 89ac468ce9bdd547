"""A bias of one row chooses as one without rows does, in SGLang's plain torch."""

from __future__ import annotations

import torch
from sglang.srt.layers.moe import topk

from oea_server.cpu import biases


def test_a_bias_of_one_row_is_as_one_of_none() -> None:
    torch.manual_seed(0)
    hidden, logits, bias = torch.randn(9, 8), torch.randn(9, 16), torch.randn(16) / 10
    native = getattr(topk.fused_topk_torch_native, "__wrapped__", topk.fused_topk_torch_native)
    ours = biases.around(native)
    expected = native(hidden, logits, 4, True, correction_bias=bias)
    for each in (bias, bias[None]):
        for got, theirs in zip(
            ours(hidden, logits, 4, True, correction_bias=each), expected, strict=True
        ):
            assert torch.equal(got, theirs)
    for got, theirs in zip(
        ours(hidden, logits, 4, True), native(hidden, logits, 4, True), strict=True
    ):
        assert torch.equal(got, theirs)
