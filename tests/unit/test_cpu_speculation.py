"""The stand-ins for kernels of speculative decoding: SGLang has their names, and each does its
kernel's arithmetic."""

from __future__ import annotations

import pkgutil
import sys
from importlib.metadata import version
from typing import Any

import pytest
import torch

from oea_server.cpu import speculation, verify_attention

pytestmark = pytest.mark.skipif(
    version("sglang") == "0.5.17", reason="0.5.17 has its kernels elsewhere"
)
TREE = torch.tensor(
    [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 1, 1]],
    dtype=torch.bool,
)
"""Which node is an ancestor of which, or itself: 0 -> 1 -> 3 -> 4, and 0 -> 2."""


@pytest.mark.parametrize("name", speculation.STANDINS)
def test_sglang_has_what_is_stood_in_for(name: str) -> None:
    holder, _, symbol = name.rpartition(".")
    assert symbol in vars(pkgutil.resolve_name(holder))


def test_they_are_put_in_place_where_sglang_has_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from oea_server.cpu.platform import OeaCpuPlatform

    supports = OeaCpuPlatform.supports_speculative_algorithm
    assert [supports(None, name) for name in ("NGRAM", "EAGLE", "DFLASH")] == [True, True, False]  # type: ignore[arg-type]
    monkeypatch.setitem(speculation.STANDINS, f"{speculation.KERNELS}.spec_tree.renamed", None)
    assert not speculation.complete()


def test_sglangs_platform_asks_for_them() -> None:
    from sglang.srt.platforms.interface import SRTPlatform

    from oea_server.cpu.platform import OeaCpuPlatform

    for name in (
        "supports_speculative_algorithm",
        "get_speculative_worker_cls",
        "get_speculative_cache_locs_fn",
    ):
        assert hasattr(SRTPlatform, name)
        assert name in vars(OeaCpuPlatform)


def test_they_are_put_in_place_when_sglang_asks_for_a_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    from oea_server.cpu.platform import OeaCpuPlatform

    done: list[str] = []
    monkeypatch.setattr(speculation, "install", lambda: done.append("installed"))
    monkeypatch.setattr("sglang.srt.platforms.current_platform", OeaCpuPlatform())
    assert SpeculativeAlgorithm.NGRAM.get_platform_worker_cls() is None
    assert done == ["installed"]


def test_what_was_imported_by_name_is_replaced_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.kernels.ops.speculative import spec_tree
    from sglang.srt.speculative import eagle_utils

    for module in (spec_tree, eagle_utils):
        monkeypatch.setattr(module, "verify_tree_greedy_func", spec_tree.verify_tree_greedy_func)
    speculation.replace(spec_tree, "verify_tree_greedy_func", speculation.verify_greedily)
    assert eagle_utils.verify_tree_greedy_func is speculation.verify_greedily


def links(requests: int = 1) -> tuple[torch.Tensor, ...]:
    n = len(TREE)
    positions, index = (torch.zeros(requests * n, dtype=torch.int64) for _ in range(2))
    child, sibling = (torch.zeros(requests, n, dtype=torch.int64) for _ in range(2))
    index = index.view(requests, n)
    mask = TREE.repeat(requests, 1).flatten()
    speculation.tree_of_mask(
        mask, torch.arange(requests) * 10 + 7, positions, index, child, sibling, requests, n
    )
    return positions, index, child, sibling


def test_a_tree_is_read_off_its_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sgl_kernel.speculative", speculation.compiled_kernels())
    from sglang.srt.speculative.ngram_worker import _derive_tree_links

    positions, index, child, sibling = links(2)
    assert positions.tolist() == [7, 8, 8, 9, 10, 17, 18, 18, 19, 20]
    assert index.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert child.tolist() == [[1, 3, -1, 4, -1]] * 2
    assert sibling.tolist() == [[-1, 2, -1, -1, -1]] * 2
    # SGLang's own words for it, on the host
    theirs = _derive_tree_links(TREE.repeat(2, 1).numpy().astype(int), 2, 5)
    assert [each.tolist() for each in theirs] == [child.tolist(), sibling.tolist()]


def test_slots_go_both_ways() -> None:
    table, requests = torch.zeros(4, 16, dtype=torch.int32), torch.tensor([2, 0])
    start, end, slots = (
        torch.tensor([3, 5]),
        torch.tensor([6, 7]),
        torch.tensor([11, 12, 13, 21, 22]),
    )
    speculation.note_slots(requests, table, start, end, slots, 16, 2)
    assert table[2, 3:6].tolist() == [11, 12, 13]
    assert table[0, 5:7].tolist() == [21, 22]
    found = torch.zeros(5, dtype=torch.int64)
    speculation.slots_of_windows(requests, table, start, end, found, 16, 2)
    assert torch.equal(found, slots)
    accepted = torch.zeros(6, dtype=torch.int64)
    speculation.slots_of_accepted(torch.tensor([[0, 2, -1], [3, -1, -1]]), slots, accepted, 8)
    assert accepted.tolist() == [11, 13, 21, 0, 0, 0]


@pytest.mark.parametrize(
    ("predicted", "taken", "tokens"),
    [
        ([5, 0, 0, 0, 0], [0], {0: 5}),
        ([21, 9, 9, 9, 9], [0, 1], {0: 21, 1: 9}),
        ([22, 9, 8, 9, 9], [0, 2], {0: 22, 2: 8}),
        ([21, 23, 0, 24, 6], [0, 1, 3, 4], {0: 21, 1: 23, 3: 24, 4: 6}),
    ],
)
def test_a_greedy_tree_is_followed_as_far_as_the_target_goes(
    predicted: list[int], taken: list[int], tokens: dict[int, int]
) -> None:
    _, index, child, sibling = links()
    predicts, accepted = (
        torch.zeros(5, dtype=torch.int32),
        torch.full((1, 5), -1, dtype=torch.int32),
    )
    count, drafts = torch.zeros(1, dtype=torch.int32), torch.tensor([[20, 21, 22, 23, 24]])
    speculation.verify_greedily(
        predicts, accepted, count, drafts, index, child, sibling, torch.tensor([predicted])
    )
    assert accepted[0, : len(taken)].tolist() == taken
    assert int(count) == len(taken) - 1
    assert {row: int(predicts[row]) for row in tokens} == tokens


def sampled(target: torch.Tensor, coins: torch.Tensor, last: torch.Tensor) -> Any:
    """A tree's outcome: the accepted nodes and what was drawn for each."""
    _, index, child, sibling = links()
    predicts, accepted = (
        torch.zeros(5, dtype=torch.int32),
        torch.full((1, 5), -1, dtype=torch.int32),
    )
    count, drafts = torch.zeros(1, dtype=torch.int32), torch.tensor([[0, 1, 2, 3, 0]])
    speculation.verify_by_sampling(
        predicts,
        accepted,
        count,
        drafts,
        index,
        child,
        sibling,
        coins,
        last,
        target,
        torch.zeros_like(target),
    )
    return [int(predicts[row]) for row in accepted[0] if row >= 0]


def test_sampling_through_a_tree_follows_the_target() -> None:
    """χ² of a draw's first token over four, and of its second where the first was 1; 6000 draws
    each."""
    generator = torch.Generator().manual_seed(3)
    target = torch.rand(1, 5, 4, generator=generator).softmax(-1)
    draws = 6000
    firsts, seconds = torch.zeros(4), torch.zeros(4)
    for _ in range(draws):
        coins, last = torch.rand(1, 5, generator=generator), torch.rand(1, generator=generator)
        tokens = sampled(target, coins, last)
        firsts[tokens[0]] += 1
        if len(tokens) > 1 and tokens[0] == 1:
            seconds[tokens[1]] += 1
    for counts, probs in ((firsts, target[0, 0]), (seconds, target[0, 1])):
        expected = probs * counts.sum()
        assert counts.sum() > 1000
        # 3 degrees of freedom, one in a thousand
        assert float(((counts - expected) ** 2 / expected).sum()) < 16.3


def test_the_likeliest_are_kept() -> None:
    probs = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.4, 0.1, 0.3, 0.2]])
    kept = speculation.keep_top_k(probs, torch.tensor([2, 1 << 30]))
    torch.testing.assert_close(kept, torch.tensor([[0.625, 0.375, 0, 0], [0.4, 0.1, 0.3, 0.2]]))
    kept = speculation.keep_top_p(probs, torch.tensor([0.6, 0.7]))
    torch.testing.assert_close(kept, torch.tensor([[0.625, 0.375, 0, 0], [4 / 7, 0, 3 / 7, 0]]))


def test_a_window_counts_keys_before_a_draft_s_own() -> None:
    mask = torch.cat([torch.ones(len(TREE), 5, dtype=torch.bool), TREE], dim=1)
    for row, windowed in zip(mask, verify_attention.windowed(mask, 2), strict=True):
        assert windowed.nonzero().flatten().tolist() == row.nonzero().flatten().tolist()[-3:]
    assert verify_attention.windowed(mask, -1) is verify_attention.windowed(mask, None) is mask


@pytest.mark.parametrize("given", ["whole", "drafts", "chain"])
def test_drafts_attend_to_their_past_and_their_ancestors(given: str) -> None:
    """Against a softmax over what each may see."""
    torch.manual_seed(4)
    lengths, n = [3, 6], len(TREE)
    masks = [
        torch.cat([torch.ones(n, length, dtype=torch.bool), TREE], dim=1) for length in lengths
    ]
    if given == "chain":
        masks = [
            mask.where(
                torch.arange(mask.shape[1]) < 0, torch.ones_like(mask).tril(mask.shape[1] - n)
            )
            for mask in masks
        ]
    custom = {
        "whole": torch.cat([each.flatten() for each in masks]),
        "drafts": TREE.repeat(2, 1).flatten(),
    }.get(given)
    for mine, mask in zip(verify_attention.masks_of(custom, lengths, n), masks, strict=True):
        assert torch.equal(mine, mask)
        query, keys, values = (
            torch.randn(rows, heads, 8)
            for rows, heads in ((n, 4), (mask.shape[1], 2), (mask.shape[1], 2))
        )
        found = verify_attention.attend(query, keys, values, mine, 0.3)
        for row in range(n):
            for head in range(4):
                scores = (keys[mask[row], head // 2] @ query[row, head]) * 0.3
                expected = scores.softmax(0) @ values[mask[row], head // 2]
                torch.testing.assert_close(found[row, head], expected)
