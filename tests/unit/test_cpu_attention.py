"""Attention of a whole decode step at once against one sequence at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from oea_server.cpu import attention

SLOTS, LONGEST = 64, 12


def one_by_one(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, tokens: list[list[int]]
) -> torch.Tensor:
    rows = []
    repeat = query.shape[1] // keys.shape[1]
    for row, mine in zip(query, tokens, strict=True):
        k, v = (
            cache[mine].repeat_interleave(repeat, dim=1).transpose(0, 1) for cache in (keys, values)
        )
        rows.append(scaled_dot_product_attention(row[:, None], k, v, scale=0.3)[:, 0])
    return torch.stack(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("lengths", [[1], [5, 5], [1, 12, 3], [12, 12, 11, 1]])
def test_all_at_once_is_one_by_one(dtype: torch.dtype, kv_heads: int, lengths: list[int]) -> None:
    keys, values = (torch.randn(SLOTS, kv_heads, 8).to(dtype) for _ in range(2))
    query = torch.randn(len(lengths), 4, 8).to(dtype)
    slots = torch.randperm(SLOTS - 1)[: sum(lengths)].split(lengths)
    # what lies beyond a sequence is somebody else's
    table = torch.full((len(lengths), max(lengths)), SLOTS - 1)
    keys[-1] = values[-1] = float("nan")
    for row, mine in zip(table, slots, strict=True):
        row[: len(mine)] = mine
    out = attention.decode(query, keys, values, table, torch.tensor(lengths), 0.3)
    expected = one_by_one(
        query.float(), keys.float(), values.float(), [mine.tolist() for mine in slots]
    )
    torch.testing.assert_close(
        out.float(), expected, atol=1e-6 if dtype == torch.float32 else 2e-2, rtol=1e-2
    )


@pytest.mark.parametrize(
    ("lengths", "more", "ours"),
    [
        ([4, 6], {}, True),
        ([7], {}, False),
        ([1] * 3 + [9000], {}, False),
        ([4, 6], {"encoder_lens": torch.tensor([1, 1])}, False),
        ([4, 6], {"sliding_window_size": 3}, False),
    ],
)
def test_what_is_not_ours_is_left_to_sglang(
    lengths: list[int], more: dict[str, Any], ours: bool
) -> None:
    theirs: list[Any] = []

    def original(
        self: Any, query: torch.Tensor, output: torch.Tensor, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        theirs.append((args, kwargs))
        return output

    keys = torch.randn(SLOTS, 2, 8)
    query = torch.randn(len(lengths), 4, 8)
    given: dict[str, Any] = {
        "encoder_lens": None,
        "scaling": 0.3,
        "enable_gqa": True,
        "causal": False,
    } | more
    encoder = given.pop("encoder_lens")
    table = torch.randint(SLOTS, (9, 10_000))
    rows = torch.arange(len(lengths)) + 2
    output = torch.zeros_like(query)
    result = attention.around(original)(
        None, query, output, keys, keys, table, rows, torch.tensor(lengths), encoder, **given
    )
    assert result is output
    assert bool(theirs) is not ours
    if ours:
        tokens = [table[row, :length].tolist() for row, length in zip(rows, lengths, strict=True)]
        torch.testing.assert_close(
            output, one_by_one(query, keys, keys, tokens), atol=1e-6, rtol=1e-5
        )
