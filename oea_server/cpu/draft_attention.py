"""Attention of a layer that drafts, on the CPU: SGLang's plain torch attention, which its drafting
has no entry for.

Seam: AROUND `DraftBackendFactory._create_backend`, whose map of backends gets one more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend

NAME = "torch_native"


def around(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def create(
        self: Any, name: str, known: dict[str, Any], error: str, stamps_children: bool = False
    ) -> Any:
        runner = self.draft_model_runner

        def ours() -> tuple[str, Any]:
            if stamps_children:  # SGLang's sign for the one of several steps
                return NAME, DraftSteps(runner, self.topk, self.speculative_num_steps)
            # to what was accepted, a prefill behind a past
            return NAME, TorchNativeAttnBackend(runner)

        return original(self, name, {**known, NAME: ours}, error, stamps_children)

    return create


class DraftStep(TorchNativeAttnBackend):  # type: ignore[misc]
    """One step of drafting: each branch attends to its request's past and to its own drafts so
    far."""

    branches: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    """Slots [branches, longest], the branches' numbers [branches], how many slots count
    [branches]."""

    def _run_sdpa_forward_decode(
        self,
        query: torch.Tensor,
        output: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        req_to_token: torch.Tensor,
        req_pool_indices: torch.Tensor,
        seq_lens: torch.Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """In place of the requests that SGLang has in its batch."""
        found: torch.Tensor = super()._run_sdpa_forward_decode(
            query, output, k_cache, v_cache, *self.branches, *args, **kwargs
        )
        return found


class DraftSteps:
    """As `IntelAMXMultiStepDraftBackend`: a backend for each step but the last, which only
    samples."""

    def __init__(self, runner: Any, topk: int, steps: int) -> None:
        self.topk, self.steps = topk, steps
        self.table = runner.req_to_token_pool.req_to_token
        self.attn_backends = [DraftStep(runner) for _ in range(steps - 1)]

    def init_forward_metadata(self, forward_batch: Any) -> None:
        slots = slots_of_branches(
            self.table,
            forward_batch.req_pool_indices,
            forward_batch.seq_lens,
            self.topk,
            self.steps,
        )
        past = forward_batch.seq_lens.repeat_interleave(self.topk)
        for step, backend in enumerate(self.attn_backends):
            backend.init_forward_metadata(forward_batch)
            backend.branches = slots, torch.arange(len(slots)), past + step + 1


def slots_of_branches(
    table: torch.Tensor, requests: torch.Tensor, seq_lens: torch.Tensor, topk: int, steps: int
) -> torch.Tensor:
    """The cache slots of each branch: its request's past, and behind it those of its own `steps`
    drafts.

    Args:
        table: [requests, tokens] slots; behind a request's past lie `steps` for each of `topk`
            branches.
        requests, seq_lens: [B].

    Returns:
        [B * topk, longest past + steps]; what lies beyond a branch's drafts is not meant to be
        read.
    """
    past = seq_lens.long().repeat_interleave(topk)[:, None]
    branch = torch.arange(topk).repeat(len(seq_lens))[:, None]
    place = torch.arange(int(seq_lens.max()) + steps)
    place = place + torch.where(place >= past, branch * steps, 0)
    return table[
        requests.long().repeat_interleave(topk)[:, None], place.clamp(max=table.shape[1] - 1)
    ]
