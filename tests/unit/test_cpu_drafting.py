"""The stand-ins for kernels around a layer that drafts: each does its kernel's arithmetic, in
SGLang's own calls."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from oea_server.cpu import drafting, speculation

pytestmark = pytest.mark.skipif(
    version("sglang") == "0.5.17", reason="0.5.17 has its kernels elsewhere"
)
LENGTHS = torch.tensor([3, 7])


def built(
    parents: list[list[int]], chosen: list[list[int]], topk: int, width: int, mode: int
) -> dict[str, Any]:
    """SGLang's `build_tree_kernel_efficient` over our stand-in: two requests of 3 and 7 tokens."""
    from sglang.srt.speculative import eagle_utils

    drafts = torch.arange(2 * (width - 1)).view(2, -1) + 50
    found = eagle_utils.build_tree_kernel_efficient(
        torch.tensor([40, 41]),
        torch.tensor(parents),  # type: ignore[arg-type]
        torch.tensor(chosen),
        drafts,
        LENGTHS,
        int(LENGTHS.sum()),
        topk,
        3,
        width,
        eagle_utils.TreeMaskMode(mode),
    )
    return dict(
        zip(("mask", "positions", "index", "child", "sibling", "drafts"), found, strict=True)
    )


@pytest.fixture(autouse=True)
def _standing_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.srt.speculative import eagle_utils

    monkeypatch.setattr(eagle_utils, "build_tree_kernel_efficient_func", drafting.tree_of_drafts)


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("width", [2, 4])
def test_a_chain_is_built(mode: int, width: int) -> None:
    chain = list(range(width - 1))
    found = built([[-1, 0, 1][: width - 1]] * 2, [chain] * 2, 1, width, mode)
    assert found["positions"].tolist() == [*range(3, 3 + width), *range(7, 7 + width)]
    assert found["index"].tolist() == [list(range(width)), list(range(width, 2 * width))]
    assert found["child"].tolist() == [[*range(1, width), -1]] * 2
    assert found["sibling"].tolist() == [[-1] * width] * 2
    assert found["drafts"].view(2, -1)[:, 0].tolist() == [40, 41]
    start = 0
    for length in (3, 7) if mode == 0 else (0, 0):
        size = width * (length + width)
        mask = found["mask"][start : start + size].view(width, -1)
        assert torch.equal(mask, torch.ones(width, length + width).tril(length).bool())
        start += size
    assert start == found["mask"].numel()


def test_a_tree_is_built_from_its_parents() -> None:
    """Two candidates each: 0 and 1 follow the root, group 1 (2, 3) follows candidate 0, group 2 (4,
    5) candidate 1."""
    found = built([[-1, 0, 1]] * 2, [[0, 1, 3, 4], [0, 2, 3, 4]], 2, 5, 1)
    # the second has not chosen candidate 1, so candidate 4 is nobody's child
    assert found["child"].tolist() == [[1, 3, 4, -1, -1], [1, 2, -1, -1, -1]]
    assert found["sibling"].tolist() == [[-1, 2, -1, -1, -1], [-1, -1, 3, -1, -1]]
    assert found["positions"].tolist() == [3, 4, 4, 5, 5, 7, 8, 9, 9, 8]
    sees = found["mask"].view(2, 5, 5).int().tolist()
    assert sees[0] == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 0, 1, 0, 1],
    ]
    assert sees[1] == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 0, 0, 0, 1],
    ]


@pytest.mark.parametrize(
    ("topk", "steps", "width"), [(1, 1, 2), (1, 3, 4), (2, 3, 6), (3, 2, 8), (4, 4, 12)]
)
@pytest.mark.parametrize("mode", [0, 1])
def test_a_tree_is_what_sglangs_kernel_builds(topk: int, steps: int, width: int, mode: int) -> None:
    """Its Triton kernel, interpreted, on trees that SGLang chooses from candidates drawn at
    random."""
    from sglang.kernels.ops.speculative import spec_tree
    from sglang.srt.speculative.eagle_utils import organize_draft_results
    from sglang.srt.speculative.spec_utils import select_top_k_tokens

    torch.manual_seed(topk * 100 + width)
    scores: Any = None
    trees: tuple[list[torch.Tensor], ...] = ([], [], [])
    for step in range(steps):
        rows = 2 if step == 0 else 2 * topk
        likely = torch.rand(rows, topk).sort(-1, descending=True).values
        _, _, scores, tree = select_top_k_tokens(
            step, likely, torch.randint(99, (rows, topk)), torch.zeros(rows, 4), scores, topk
        )
        for found, each in zip(trees, tree, strict=True):
            found.append(each)
    parent_list, chosen, _ = organize_draft_results(*trees, width)
    size = width * width * 2 + (width * int(LENGTHS.sum()) if mode == 0 else 0)

    def build(function: Any) -> list[torch.Tensor]:
        written = [torch.ones(size, dtype=torch.bool), torch.zeros(2 * width, dtype=torch.int64)]
        written += list(torch.full((3, 2, width), -1))
        function(
            parent_list, chosen, LENGTHS, *written, topk, steps, width, spec_tree.TreeMaskMode(mode)
        )
        return written

    for ours, theirs in zip(
        build(drafting.tree_of_drafts), build(spec_tree.sgl_build_tree_kernel_triton), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_drafts_go_behind_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.kernels.ops.speculative import cache_locs

    standin = speculation.STANDINS[
        f"{speculation.KERNELS}.cache_locs.assign_draft_cache_locs_contiguous"
    ]
    monkeypatch.setattr(cache_locs, "assign_draft_cache_locs_contiguous", standin)
    table, slots = (
        torch.arange(3 * 16, dtype=torch.int32).view(3, 16),
        torch.zeros(8, dtype=torch.int64),
    )
    cache_locs.assign_draft_cache_locs_contiguous_func(
        torch.tensor([2, 0]), table, LENGTHS, slots, 2, 2
    )
    assert slots.tolist() == [35, 36, 37, 38, 7, 8, 9, 10]


def test_the_last_accepted_token_is_the_bonus(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.kernels.ops.speculative import eagle

    standin = speculation.STANDINS[f"{speculation.KERNELS}.eagle.fill_bonus_tokens"]
    monkeypatch.setattr(eagle, "fill_bonus_tokens", standin)
    accepted, bonus = torch.tensor([[5, 6, -1], [7, -1, -1]]), torch.zeros(2, dtype=torch.int32)
    eagle.fill_bonus_tokens_func(accepted, torch.tensor([2, 1]), bonus, 3, 2)
    assert bonus.tolist() == [6, 7]


def test_sglangs_drafting_asks_for_our_attention() -> None:
    from sglang.srt.speculative.draft_utils import DraftBackendFactory

    assert list(inspect.signature(DraftBackendFactory._create_backend).parameters) == [
        "self",
        "backend_name",
        "backend_map",
        "error_template",
        "stamps_children",
    ]


@pytest.mark.parametrize("topk", [1, 2])
def test_each_branch_attends_to_its_past_and_its_own_drafts(topk: int) -> None:
    """Against a softmax over what each may see, through SGLang's own backend."""
    from oea_server.cpu.draft_attention import DraftSteps

    torch.manual_seed(5)
    steps, heads, size = 3, 2, 8
    table = torch.randperm(64, dtype=torch.int32).view(2, 32)
    keys, values = torch.randn(64, heads, size), torch.randn(64, heads, size)
    runner: Any = SimpleNamespace(
        device="cpu",
        req_to_token_pool=SimpleNamespace(req_to_token=table),
        token_to_kv_pool=object(),
    )
    drafting_steps = DraftSteps(runner, topk, steps)
    assert len(drafting_steps.attn_backends) == steps - 1
    batch: Any = SimpleNamespace(
        req_pool_indices=torch.tensor([1, 0]), seq_lens=LENGTHS, out_cache_loc=None
    )
    drafting_steps.init_forward_metadata(batch)
    for step, backend in enumerate(drafting_steps.attn_backends):
        query = torch.randn(2 * topk, heads, size)
        found = backend._run_sdpa_forward_decode(
            query,
            torch.empty_like(query),
            keys,
            values,
            table,
            batch.req_pool_indices,
            LENGTHS,
            None,
            scaling=0.3,
            enable_gqa=False,
            causal=False,
            sliding_window_size=None,
        )
        for row in range(2 * topk):
            request, branch = divmod(row, topk)
            length, slots = int(LENGTHS[request]), table[(1, 0)[request]].tolist()
            start = length + branch * steps
            seen = slots[:length] + slots[start : start + step + 1]
            for head in range(heads):
                scores = (keys[seen, head] @ query[row, head]) * 0.3
                torch.testing.assert_close(found[row, head], scores.softmax(0) @ values[seen, head])
