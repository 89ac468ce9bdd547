"""The small kernels of speculative decoding in plain torch, so that it serves where no GPU is (with
SGLang 0.5.23).

SGLang's own workers, batching, trees and acceptance run; each function here stands in for the
arithmetic of the one kernel that its docstring names, and is put in its place before SGLang's
workers import it. tests/unit/test_cpu_speculation.py fails where SGLang renames one."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch

from oea_server.cpu.drafting import (
    first_child,
    last_accepted,
    next_sibling,
    slots_to_draft,
    tree_of_drafts,
)

KERNELS = "sglang.kernels.ops.speculative"
FACTORY = "sglang.srt.speculative.draft_utils.DraftBackendFactory"
ALGORITHMS = ("NGRAM", "EAGLE")
"""Algorithms whose kernels all have a stand-in, as SGLang resolves them: NEXTN is EAGLE there."""


def install() -> None:
    """Put the stand-ins where SGLang imports the kernels.

    Raises:
        AttributeError, ImportError: this SGLang has other kernels (`complete`).
    """
    from oea_server.cpu import verify_attention
    from oea_server.cpu.draft_attention import around

    sys.modules.setdefault("sgl_kernel.speculative", compiled_kernels())
    for name, ours in STANDINS.items():
        holder, _, symbol = name.rpartition(".")
        replace(pkgutil.resolve_name(holder), symbol, ours)
    verify_attention.install()
    drafting = pkgutil.resolve_name(FACTORY)
    drafting._create_backend = around(drafting._create_backend)


def complete() -> bool:
    """Whether this SGLang has all the kernels that are stood in for: 0.5.17 to 0.5.22 have others.

    A name is enough: without a GPU some of them are None.
    """
    try:
        for name in STANDINS:
            pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def compiled_kernels() -> ModuleType:
    """In place of a part of SGLang's package of compiled kernels, which asks for a CUDA driver when
    it is imported."""
    compiled = ModuleType("sgl_kernel.speculative")
    compiled.reconstruct_indices_from_tree_mask = tree_of_mask  # type: ignore[attr-defined]
    return compiled


def replace(holder: Any, symbol: str, ours: Any) -> None:
    """Put a stand-in there, and wherever SGLang has imported the symbol from there by now."""
    theirs = vars(holder)[symbol]
    setattr(holder, symbol, ours)
    for name, module in list(sys.modules.items()):
        if name.startswith("sglang.") and vars(module).get(symbol, holder) is theirs:
            setattr(module, symbol, ours)


class Launched:
    """A function in place of a Triton kernel: `kernel[grid](...)`."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return self.function


def tree_of_mask(
    tree_mask: torch.Tensor,
    verified_seq_len: torch.Tensor,
    positions: torch.Tensor,
    retrieve_index: torch.Tensor,
    retrieve_next_token: torch.Tensor,
    retrieve_next_sibling: torch.Tensor,
    batch_size: int,
    draft_token_num: int,
) -> None:
    """`sgl_kernel.speculative.reconstruct_indices_from_tree_mask`: where each node of a tree is,
    its first child and its next sibling (-1 where there is none), from its ancestors.

    Args:
        tree_mask: [B * n * n], whether node j is an ancestor of node i, or i itself.
        verified_seq_len: [B].
        The rest: written, [B * n] or [B, n].
    """
    n = draft_token_num
    node = torch.arange(n)
    ancestor = tree_mask.view(batch_size, n, n).bool() & (node < node[:, None])
    parent = torch.where(ancestor, node, -1).amax(-1)  # [B, n]
    positions.copy_((ancestor.sum(-1) + verified_seq_len[:, None]).view_as(positions))
    retrieve_index.copy_(torch.arange(batch_size * n).view_as(retrieve_index))
    retrieve_next_token.copy_(first_child(parent).view_as(retrieve_next_token))
    retrieve_next_sibling.copy_(next_sibling(parent).view_as(retrieve_next_sibling))


def windows(
    requests: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor
) -> Iterator[tuple[slice, tuple[int, slice]]]:
    """Of each request in turn: its places in a list of all requests' slots, and in the table of
    requests."""
    place = 0
    for request, start, end in zip(requests.tolist(), starts.tolist(), ends.tolist(), strict=True):
        yield slice(place, place + end - start), (request, slice(start, end))
        place += end - start


def slots_of_windows(
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    start_offset: torch.Tensor,
    end_offset: torch.Tensor,
    out_cache_loc: torch.Tensor,
    *_: int,
) -> None:
    """`cache_locs.assign_extend_cache_locs`: the cache slots of each request's tokens from start to
    end, one request after the other."""
    for places, window in windows(req_pool_indices, start_offset, end_offset):
        out_cache_loc[places] = req_to_token[window]


def note_slots(
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    start_offset: torch.Tensor,
    end_offset: torch.Tensor,
    out_cache_loc: torch.Tensor,
    *_: int,
) -> None:
    """`allocation.assign_req_to_token_pool`: the way back, new slots as those of each request's
    tokens from start to end."""
    for places, window in windows(req_pool_indices, start_offset, end_offset):
        req_to_token[window] = out_cache_loc[places]


def slots_of_drafts(
    *,
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    start_offset: torch.Tensor,
    end_offset: torch.Tensor,
    batch_size: int,
    draft_token_num: int,
    device: Any,
) -> torch.Tensor:
    """What a platform gives for `cache_locs.assign_extend_cache_locs_func`. [B * n] int64."""
    found = torch.empty(batch_size * draft_token_num, dtype=torch.int64, device=device)
    slots_of_windows(req_pool_indices, req_to_token, start_offset, end_offset, found)
    return found


def slots_of_accepted(
    accept_index: torch.Tensor,
    out_cache_loc: torch.Tensor,
    accept_out_cache_loc: torch.Tensor,
    *_: int,
) -> None:
    """`eagle.fill_accept_out_cache_loc`: the cache slots of the accepted nodes, side by side; -1
    accepts nothing."""
    accepted = accept_index.flatten()
    accepted = accepted[accepted >= 0].long()
    accept_out_cache_loc[: len(accepted)] = out_cache_loc[accepted]


def verify_greedily(
    predicts: torch.Tensor,
    accept_index: torch.Tensor,
    accept_token_num: torch.Tensor,
    candidates: torch.Tensor,
    retrieve_index: torch.Tensor,
    retrieve_next_token: torch.Tensor,
    retrieve_next_sibling: torch.Tensor,
    target_predict: torch.Tensor,
    topk: int = -1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`spec_tree.verify_tree_greedy_func`: down each tree, as long as a child is what the target
    predicts."""
    for request, drafts in enumerate(candidates.tolist()):
        children, siblings = (
            retrieve_next_token[request].tolist(),
            retrieve_next_sibling[request].tolist(),
        )
        wanted, node, taken = target_predict[request].tolist(), 0, [0]
        while len(taken) < accept_index.shape[1]:
            child = children[node]
            while child != -1 and drafts[child] != wanted[node]:
                child = siblings[child]
            if child == -1:
                break
            node = child
            taken.append(node)
        rows = retrieve_index[request, taken]
        accept_index[request, : len(taken)] = rows.to(accept_index.dtype)
        accept_token_num[request] = len(taken) - 1
        predicts[rows] = target_predict[request, taken].to(predicts.dtype)
    return predicts, accept_index, accept_token_num


def verify_by_sampling(
    predicts: torch.Tensor,
    accept_index: torch.Tensor,
    accept_token_num: torch.Tensor,
    candidates: torch.Tensor,
    retrive_index: torch.Tensor,
    retrive_next_token: torch.Tensor,
    retrive_next_sibling: torch.Tensor,
    uniform_samples: torch.Tensor,
    uniform_samples_for_final_sampling: torch.Tensor,
    target_probs: torch.Tensor,
    draft_probs: torch.Tensor,
    threshold_single: float = 1.0,
    threshold_acc: float = 1.0,
    deterministic: bool = True,
) -> None:
    """`sampling.tree_speculative_sampling_target_only`: a coin goes over the children in turn, each
    as wide as the target finds it likely. Where the coin meets no child, the next token is drawn
    from what is left.

    Args:
        target_probs: [B, n, V]; draft_probs the same, zeros, in which rejected children are marked.
        uniform_samples: [B, n] coins; uniform_samples_for_final_sampling: [B].
    """
    for request, drafts in enumerate(candidates.tolist()):
        children, siblings = (
            retrive_next_token[request].tolist(),
            retrive_next_sibling[request].tolist(),
        )
        node, taken = 0, [0]
        while len(taken) < accept_index.shape[1]:
            coin, passed, child = float(uniform_samples[request, node]), 0.0, children[node]
            while child != -1:
                likely = float(target_probs[request, node, drafts[child]])
                passed = passed + likely
                if likely > 0 and (coin < passed / threshold_acc or likely >= threshold_single):
                    break
                draft_probs[request, node, drafts[child]] = likely
                child = siblings[child]
            if child == -1:
                break
            predicts[retrive_index[request, node]] = drafts[child]
            node = child
            taken.append(node)
        left = target_probs[request, node]
        if len(taken) < accept_index.shape[1]:
            left = (left - draft_probs[request, node]).clamp(min=0)
        mass = left.cumsum(0)
        drawn = int((mass <= uniform_samples_for_final_sampling[request] * mass[-1]).sum())
        rows = retrive_index[request, taken]
        predicts[rows[-1]] = min(drawn, int(left.nonzero()[-1]))
        accept_index[request, : len(taken)] = rows.to(accept_index.dtype)
        accept_token_num[request] = len(taken) - 1


def keep_top_k(probs: torch.Tensor, top_ks: torch.Tensor) -> torch.Tensor:
    """`renorm.top_k_renorm_prob` of FlashInfer: each row's k most likely tokens, and those as
    likely as the last."""
    ranked = probs.sort(-1, descending=True).values
    last = ranked.gather(-1, (top_ks.long().clamp(1, probs.shape[-1]) - 1)[:, None])
    return _divided(probs.where(probs >= last, 0.0))


def keep_top_p(probs: torch.Tensor, top_ps: torch.Tensor) -> torch.Tensor:
    """`renorm.top_p_renorm_prob` of FlashInfer: each row's most likely tokens up to this mass, and
    those as likely as the last."""
    ranked = probs.sort(-1, descending=True).values
    before = ranked.cumsum(-1) - ranked
    last = ranked.where(before < top_ps[:, None], torch.inf).amin(-1, keepdim=True)
    return _divided(probs.where(probs >= last, 0.0))


def _divided(probs: torch.Tensor) -> torch.Tensor:
    return probs / probs.sum(-1, keepdim=True)


def no_copy_kernel(pool: Any) -> None:
    """`MHATokenToKVPool._init_kv_copy_and_warmup`, which launches `copy_all_layer_kv_cache_tiled`:
    with SGLANG_NATIVE_MOVE_KV_CACHE accepted drafts move by torch."""
    pool._kv_copy_config = None


def nothing_to_wait_for(device: Any = None) -> None:
    """`torch.cuda.synchronize`, which models call once they share their embedding and head with a
    layer that drafts."""


STANDINS: dict[str, Any] = {
    "torch.cuda.synchronize": nothing_to_wait_for,
    "sglang.srt.mem_cache.allocation.assign_req_to_token_pool": Launched(note_slots),
    f"{KERNELS}.cache_locs.assign_extend_cache_locs": Launched(slots_of_windows),
    f"{KERNELS}.cache_locs.assign_draft_cache_locs_contiguous": Launched(slots_to_draft),
    f"{KERNELS}.eagle.fill_accept_out_cache_loc": Launched(slots_of_accepted),
    f"{KERNELS}.eagle.fill_bonus_tokens": Launched(last_accepted),
    f"{KERNELS}.spec_tree.build_tree_kernel_efficient_func": tree_of_drafts,
    f"{KERNELS}.spec_tree.verify_tree_greedy_func": verify_greedily,
    f"{KERNELS}.verify_sampling.tree_speculative_sampling_target_only": verify_by_sampling,
    "sglang.kernels.ops.sampling.renorm.top_k_renorm_prob": keep_top_k,
    "sglang.kernels.ops.sampling.renorm.top_p_renorm_prob": keep_top_p,
    "sglang.srt.mem_cache.memory_pool.MHATokenToKVPool._init_kv_copy_and_warmup": no_copy_kernel,
}
"""The symbol -> what stands in for it. SGLang's workers import them by name, later."""
