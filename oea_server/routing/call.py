"""`route`, for any router logits: by the implementation that serves on their device."""

from __future__ import annotations

import torch

from oea_server.routing.contract import Router, Routing, width_of
from oea_server.routing.fastest import way
from oea_server.routing.placement import Placement
from oea_server.routing.policy import Policy
from oea_server.routing.tally import Tally


def route(
    router_logits: torch.Tensor,
    policy: Policy,
    router: Router | None = None,
    *,
    k: int | None = None,
    num_real: int | torch.Tensor | None = None,
    layer: int = 0,
    row_k0: torch.Tensor | None = None,
    drafts: torch.Tensor | None = None,
    placement: Placement | None = None,
    tally: Tally | None = None,
) -> Routing:
    """Choose experts for one decode step of one MoE layer (arXiv 2511.02237, algorithm 1).

    Args:
        router_logits: [B, N], any float dtype; row i belongs to token i.
        policy: what to guarantee and how to fill.
        router: how the model scores and weighs; `k=8` is short for `Router(k=8)`.
        num_real: rows that are tokens; the rest pad a CUDA graph. None means all; an integer, or a
            0-d integer tensor on the logits' device, the first so many, at least 0 and at most B; a
            bool tensor [B] those that it marks.
        layer: selects a per-layer k0 and separates random draws.
        row_k0: [B] integers, what each row asks for itself: 0 leaves it to the policy. -n
            guarantees its own top n beside the policy's floor; n guarantees its own top n in place
            of the policy's floor, but for floors that are the whole top k, as of vanilla. The row
            may then take as many experts, if the policy's limit is lower. From k on, either way, it
            is routed as by vanilla: its own top k, and weights divided by their mass. No row that
            asks is drawn at random.
        drafts: [B] integers, which rows are guesses at what follows a token, to be verified: 0 is a
            token, one for each request; j its j-th guess in a chain; ~a a guess in a tree, whose
            ancestors among the guesses are the bits of a: bit i is the row i + 1 rows before it (of
            63 at most; -1 names none). A row fills from its own floor and from those of tokens, one
            in a tree from those of its ancestors, and one in a chain from those of all guesses that
            are no deeper than itself: from nothing that follows from what comes after it. The
            policy is read at the number of tokens, and its pool is the union of the floors: more
            would depend on every guess. If not given, each row is a token.
        placement: where the experts lie; if not given, in equal shares on the policy's ranks.
        tally: where to count the step.

    Returns:
        Routing: weights [B, width] float32, ids [B, width] int32, pool [N] bool, where width is k
        (or the policy's k_max if that is more). Ties go to the lowest expert id.

    A broken row, one whose scores are not finite (softmax: any logit NaN or +inf, or all of them
    -inf; sigmoid: any logit NaN), changes nothing for its neighbours: it has no floor and no vote,
    and adds nothing to the pool. Like a pad row it names an expert of the pool (0 if that is
    empty). Its weights are NaN in every slot that a token may use, so that whatever reads the
    answer still sees it. It is a token of the step, to the schedule and in the tally, which takes
    no expert and keeps no mass. A single -inf masks an expert and breaks nothing.

    Raises:
        ValueError: a knob or a field of the router is out of bounds for N experts; or neither, or
        both, of `router` and
            `k` are given.
    """
    if (router is None) == (k is None):
        raise ValueError("route takes a Router, or k=8 for short: one of them")
    router = router or Router(k or 0)
    batch, num_experts = router_logits.shape
    chosen = way(router_logits.device, batch, num_experts, width_of(policy, router.k))
    return chosen.route(
        router_logits,
        policy,
        router,
        num_real=num_real,
        layer=layer,
        row_k0=row_k0,
        drafts=drafts,
        placement=placement,
        tally=tally,
    )
