"""The small kernels around a layer that drafts (EAGLE, NEXTN) in plain torch; `speculation` puts
them in place."""

from __future__ import annotations

from typing import Any

import torch


def slots_to_draft(
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    seq_lens: torch.Tensor,
    out_cache_loc: torch.Tensor,
    pool_len: int,
    topk: int,
    columns: int,
    **_: Any,
) -> None:
    """`cache_locs.assign_draft_cache_locs_contiguous`: the cache slots behind each request's past,
    `topk * columns` of them. SGLang asks for positions with them on GPUs only."""
    behind = seq_lens.long()[:, None] + torch.arange(topk * columns)
    out_cache_loc.copy_(req_to_token[req_pool_indices.long()[:, None], behind].flatten())


def last_accepted(
    accept_tokens: torch.Tensor,
    accept_lens: torch.Tensor,
    bonus_tokens: torch.Tensor,
    accept_stride: int,
) -> None:
    """`eagle.fill_bonus_tokens`: of each request's accepted tokens the last, which the target has
    added.

    Args:
        accept_tokens: [B, stride], or flat; accept_lens: [B], at least 1; bonus_tokens: [B],
            written.
    """
    of_request = accept_tokens.reshape(-1, accept_stride)
    bonus_tokens.copy_(of_request.gather(1, accept_lens.long()[:, None] - 1)[:, 0])


def tree_of_drafts(
    parent_list: torch.Tensor,
    top_scores_index: torch.Tensor,
    seq_lens: torch.Tensor,
    tree_mask: torch.Tensor,
    positions: torch.Tensor,
    retrieve_index: torch.Tensor,
    retrieve_next_token: torch.Tensor,
    retrieve_next_sibling: torch.Tensor,
    topk: int,
    spec_steps: int,
    num_verify_tokens: int,
    tree_mask_mode: int,
) -> None:
    """`spec_tree.build_tree_kernel_efficient_func`: where each chosen draft is, what it attends to,
    its first child and its next sibling (-1 where there is none). A draft whose parent was not
    chosen is nobody's child.

    Args:
        parent_list: [B, *]; of each group of `topk` candidates the one that they follow (the first
            group follows the root).
        top_scores_index: [B, n - 1] the candidates that were chosen, ascending.
        tree_mask: written beside the past, [sum of n * (length + n)] or [B * n * n] bool (SGLang's
            `TreeMaskMode`).
        positions: [B * n]; the rest [B, n], the last two -1 before. All written.
    """
    requests, n = len(seq_lens), num_verify_tokens
    parent = parents(parent_list, top_scores_index, topk)
    sees = torch.eye(n, dtype=torch.bool).repeat(requests, 1, 1)
    sees[:, :, 0] = True
    row = torch.arange(requests)
    for node in range(1, n):  # a parent is before its children
        sees[:, node] |= sees[row, parent[:, node].clamp(min=0)]
    write_mask(tree_mask, sees, seq_lens.tolist(), full=int(tree_mask_mode) == 0)
    positions.copy_((sees.sum(-1) - 1 + seq_lens[:, None]).flatten())
    retrieve_index.copy_(torch.arange(requests * n).view(requests, n))
    retrieve_next_token.copy_(first_child(parent))
    retrieve_next_sibling.copy_(next_sibling(parent))


def parents(parent_list: torch.Tensor, chosen: torch.Tensor, topk: int) -> torch.Tensor:
    """The node that each node of a tree follows; -1 for the root, and for one whose parent was not
    chosen. [B, n]"""
    group = chosen // topk
    if not (group > 0).any():
        found = torch.zeros_like(chosen)
    else:
        wanted = parent_list.gather(1, group.clamp(max=parent_list.shape[1] - 1))
        same = chosen[:, None, :] == wanted[:, :, None]
        found = torch.where(same.any(-1), same.int().argmax(-1) + 1, -1).where(group > 0, 0)
    return torch.cat([found.new_full((len(chosen), 1), -1), found], dim=1)


def write_mask(
    tree_mask: torch.Tensor, sees: torch.Tensor, lengths: list[int], *, full: bool
) -> None:
    """What each node sees of its tree into SGLang's flat mask, whose past it has filled itself.
    sees: [B, n, n]"""
    n, start = sees.shape[-1], 0
    if not full:
        tree_mask[: sees.numel()] = sees.flatten()
        return
    for each, length in zip(sees, lengths, strict=True):
        size = n * (length + n)
        tree_mask[start : start + size].view(n, length + n)[:, length:] = each
        start += size


def first_child(parent: torch.Tensor) -> torch.Tensor:
    """[B, n] -> [B, n], -1 where there is none."""
    node = torch.arange(parent.shape[1])
    return _first(parent[:, None, :] == node[:, None])


def next_sibling(parent: torch.Tensor) -> torch.Tensor:
    """[B, n] -> [B, n], -1 where there is none."""
    node = torch.arange(parent.shape[1])
    same = parent[:, None, :] == parent[:, :, None]
    return _first(same & (node > node[:, None]) & (parent >= 0)[:, :, None])


def _first(marked: torch.Tensor) -> torch.Tensor:
    """The first that is marked in the last dimension, -1 if none is."""
    return torch.where(marked.any(-1), marked.int().argmax(-1), -1)
