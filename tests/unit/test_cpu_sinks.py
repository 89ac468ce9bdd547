"""Attention with sinks against a softmax that is written out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from oea_server.cpu import attention, sinks

QUERIES, KEYS, HEADS, GROUPS, SIZE = 3, 5, 4, 2, 8
SINKS = torch.tensor([-1.0, 0.0, 2.0, 5.0])


def given(queries: int = QUERIES, keys: int = KEYS) -> tuple[torch.Tensor, ...]:
    return tuple(
        torch.randn(1, heads, n, SIZE)
        for heads, n in ((HEADS, queries), (GROUPS, keys), (GROUPS, keys))
    )


def written_out(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float
) -> torch.Tensor:
    k, v = (each.repeat_interleave(HEADS // GROUPS, dim=1) for each in (k, v))
    scores = (q @ k.transpose(-1, -2) * scale).masked_fill(~mask, -torch.inf).exp()
    return scores @ v / (scores.sum(-1, keepdim=True) + SINKS.exp()[None, :, None, None])


@pytest.mark.parametrize("kind", ["all", "causal", "window"])
def test_a_sink_takes_its_share_and_adds_nothing(kind: str) -> None:
    queries = KEYS if kind == "causal" else QUERIES
    q, k, v = given(queries)
    mask = torch.ones(queries, KEYS, dtype=torch.bool)
    how: dict[str, Any] = {"enable_gqa": True, "scale": 0.3}
    if kind == "causal":
        mask = mask.tril()
        how["is_causal"] = True
    elif kind == "window":
        mask = mask.triu(1)
        how["attn_mask"] = mask
    with sinks.of(SINKS):
        found = sinks.attention(q, k, v, **how)
    torch.testing.assert_close(found, written_out(q, k, v, mask, 0.3), atol=1e-6, rtol=1e-5)


def test_without_sinks_it_is_torchs_to_the_bit() -> None:
    q, k, v = given()
    with sinks.of(None):
        found = sinks.attention(q, k, v, is_causal=False, enable_gqa=True, scale=0.3)
    assert torch.equal(found, scaled_dot_product_attention(q, k, v, enable_gqa=True, scale=0.3))


def test_sinks_hold_for_one_layer_and_reach_no_step_that_runs_as_one() -> None:
    """The padded step of `attention` has no room for them, and goes SGLang's way."""
    seen: list[Any] = []

    def sglangs(
        self: Any, query: torch.Tensor, output: torch.Tensor, *_: Any, **__: Any
    ) -> torch.Tensor:
        seen.append(sinks.of_layer)
        return output

    decode = attention.around(sglangs)
    query, cache = torch.randn(2, HEADS, SIZE), torch.randn(16, GROUPS, SIZE)
    table, rows = torch.arange(16).view(2, 8), torch.arange(2)

    def forward(layer: Any) -> torch.Tensor:
        where = cache, cache, table, rows, torch.tensor([4, 6]), None
        return decode(layer, query, torch.zeros_like(query), *where, scaling=0.3)

    taking = sinks.taking_sinks(forward)
    taking(SimpleNamespace(), sinks=SINKS)
    taking(SimpleNamespace())
    assert [each is SINKS for each in seen] == [True]
    assert sinks.of_layer is None
