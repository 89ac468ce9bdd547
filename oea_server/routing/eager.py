"""floor -> pool -> fill in vectorised torch, on any device.

Nothing here waits for the device, allocates by a device value or branches on one: the same code
runs under CUDA graph capture, where the number of real rows is only known to the device.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from oea_server.routing import widen
from oea_server.routing.keys import arange, expert_of, random_keys, sort_keys
from oea_server.routing.knobs import Knobs, knobs_of
from oea_server.routing.placement import Placement, contiguous
from oea_server.routing.policy import POOLS, Numbers, Policy, Room
from oea_server.routing.tally import Tally

RENORMALIZE_EPSILON = 1e-20
"""SGLang's guard against an all-zero row (`sglang.srt.layers.moe.topk`, same value)."""

ABOVE_ALL = 1 << 62
"""Above every sort key."""

Scoring = Literal["softmax", "sigmoid"]


class Routing(NamedTuple):
    """Which experts each token takes, and which the step wakes."""

    weights: torch.Tensor
    """[B, width] float32; 0 in unused slots and pad rows."""
    ids: torch.Tensor
    """[B, width] int32, best first. Unused slots repeat the token's best expert and pad rows an
    expert of the pool, both with weight 0: they wake nobody. So do broken rows, with weight NaN."""
    pool: torch.Tensor
    """[N] bool: the experts this step loads."""


def route(
    router_logits: torch.Tensor,
    policy: Policy | Knobs,
    *,
    k: int,
    renormalize: bool = True,
    num_real: int | torch.Tensor | None = None,
    layer: int = 0,
    scoring: Scoring = "softmax",
    bias: torch.Tensor | None = None,
    tally: Tally | None = None,
    placement: Placement | None = None,
) -> Routing:
    """Choose experts for one decode step of one MoE layer (arXiv 2511.02237, algorithm 1).

    Args:
        router_logits: [..., B, N], any float dtype; row i belongs to token i. Leading dimensions are steps, each
            routed by itself; everything that comes back has them too. One step only with `tally` and for random draws.
        policy: what to guarantee and how to fill; as `Knobs`, read on the device.
        k: the model's experts per token.
        renormalize: divide the weights by their sum (Qwen3-MoE's norm_topk_prob).
        num_real: rows that are tokens; the rest pad a CUDA graph. None means all; a 0-d integer
            tensor on the logits' device keeps the count out of the graph. Read as at least 0, at most B.
        layer: selects a per-layer k0 and separates random draws.
        scoring: how logits become scores (Qwen3-MoE: softmax; DeepSeek-V3, GLM-4.5: sigmoid).
        bias: [N] float32, added to the scores to choose, never to weigh (DeepSeek-V3's
            e_score_correction_bias).
        tally: where to count the step.
        placement: where the experts lie; if not given, in equal shares on the policy's ranks.

    Returns:
        Routing: weights [B, width] float32, ids [B, width] int32, pool [N] bool, where width is k
        (or a `Policy`'s k_max if that is more). Ties go to the lowest expert id.

    A broken row, one with a score that is NaN (softmax: any logit NaN or +inf, or all of them
    -inf; sigmoid: any logit NaN), changes nothing for its neighbours: it has no floor and no vote,
    and adds nothing to the pool. Like a pad row it names an expert of the pool (0 if that is
    empty). Its weights are NaN in every slot that a token may use, so that whatever reads the
    answer still sees it. It is a token of the step, to the schedule and in the tally, which takes
    no expert and keeps no mass. A single -inf masks an expert and breaks nothing.

    Raises:
        ValueError: k or a knob is out of bounds for N experts.
    """
    batch, num_experts = router_logits.shape[-2:]
    check(router_logits, policy, k)
    device = router_logits.device

    logits = router_logits.float()
    scores = logits.softmax(dim=-1) if scoring == "softmax" else logits.sigmoid()
    own = sort_keys(logits if bias is None else scores + bias)
    keys = own if isinstance(policy, Policy) and policy.name != "random" else drawn(own, router_logits, policy, layer)
    tokens = tokens_of(batch, num_real)
    if isinstance(policy, Policy) and isinstance(tokens, int):
        numbers = policy.numbers(tokens, layer, k=k, num_experts=num_experts)
    else:
        knobs = policy if isinstance(policy, Knobs) else knobs_of(policy, layer, k, num_experts, device)
        numbers = knobs.at(layer, tokens)
    is_token = (arange(batch, device) < tokens)[:, None]
    # softmax spreads a NaN over its row, and a sum meets it wherever it is
    sample = scores[..., :1] if scoring == "softmax" else scores.sum(dim=-1, keepdim=True)
    real = is_token & ~sample.isnan()  # a broken row is a token, and else a pad row

    best = keys.topk(k, dim=-1).values
    guaranteed = floor(best, scores, numbers, policy.p, scoring, real)
    pool = pool_of(keys, best, guaranteed)
    place = placement_of(policy, placement, num_experts, device)
    if place is not None:
        home = widen.homes(pool, place)
        if home.dim() == 1:
            place.home.copy_(home)
        room = policy.room if isinstance(policy, Policy) else Room(*policy.room.unbind())  # type: ignore[arg-type]
        if not is_union(room, place.ranks):
            values = (logits - logits.amax(dim=-1, keepdim=True)).exp() if scoring == "softmax" else scores
            wanted = widen.votes(best, values.gather(-1, expert_of(best)), numbers, real, num_experts)
            pool = widen.widen(pool, wanted, home, place, room)
    chosen, used = fill(keys, best, pool, numbers, width_of(policy, k), real)
    routing, mass = weigh(chosen, used, pool, scores, renormalize, real)
    spoilt = is_token & ~real & (arange(used.shape[-1], device) < numbers.limit)
    routing = routing._replace(weights=routing.weights.masked_fill(spoilt, torch.nan))
    if tally is not None:
        vanilla = expert_of(best if keys is own else own.topk(k, dim=-1).values)
        kept = mass / (scores.gather(-1, vanilla).sum(dim=-1) + RENORMALIZE_EPSILON)
        vanilla = vanilla.where(real, -1)
        tally.add_routed(layer, pool, vanilla, guaranteed, used, kept, tokens, None if place is None else place.home)
    return routing


def tokens_of(batch: int, num_real: int | torch.Tensor | None) -> int | torch.Tensor:
    """The real rows of a batch: never more than it has, never fewer than none."""
    if num_real is None:
        return batch
    if isinstance(num_real, int):
        return min(max(num_real, 0), batch)
    return num_real.clamp(0, batch)


def check(router_logits: torch.Tensor, policy: Policy | Knobs, k: int) -> None:
    """Raise ValueError where k or a knob does not fit the logits' N experts."""
    num_experts = router_logits.shape[-1]
    if not 1 <= k <= num_experts:
        raise ValueError(f"k={k} is outside 1..{num_experts}, the number of experts")
    if isinstance(policy, Policy):
        policy.check(k=k, num_experts=num_experts)


def placement_of(
    policy: Policy | Knobs, placement: Placement | None, num_experts: int, device: torch.device
) -> Placement | None:
    """Where the experts lie; None where the answer makes no difference."""
    if placement is not None or (isinstance(policy, Policy) and is_union(policy.room, policy.ranks)):
        return placement
    return contiguous(num_experts, policy.ranks if isinstance(policy, Policy) else 1, device)


def is_union(room: Room, ranks: int) -> bool:
    """Whether a pool is the union of the floors, as far as the host knows."""
    return isinstance(room.kind, int) and POOLS[room.kind] in (("union", "fill") if ranks == 1 else ("union",))


def width_of(policy: Policy | Knobs, k: int) -> int:
    """Columns of the routing: k, or k_max where that is more; live knobs never change it."""
    return policy.width(k) if isinstance(policy, Policy) else k


def drawn(own: torch.Tensor, router_logits: torch.Tensor, policy: Policy | Knobs, layer: int) -> torch.Tensor:
    """The keys to choose by where the policy is, or may turn, random. [B, N] int64."""
    if isinstance(policy, Policy):
        return random_keys(router_logits, policy.seed, layer)
    return torch.where(policy.draw[0] > 0, random_keys(router_logits, policy.draw[1], layer), own)


def floor(
    best: torch.Tensor,
    scores: torch.Tensor,
    numbers: Numbers,
    p: float | torch.Tensor,
    scoring: Scoring,
    real: torch.Tensor | None,
) -> torch.Tensor:
    """Phase 1: which of its own top k each token is guaranteed. [B, k] bool."""
    rank = arange(best.shape[-1], best.device)
    guaranteed = (rank < numbers.floor).expand(best.shape)
    if isinstance(p, torch.Tensor) or p < 1.0:
        mass = scores.gather(-1, expert_of(best)).double().cumsum(dim=-1)
        if scoring == "sigmoid":  # softmax scores sum to 1 as they are
            mass = mass / (scores.double().sum(dim=-1, keepdim=True) + RENORMALIZE_EPSILON)
        reached_before = torch.nn.functional.pad(mass[..., :-1] >= p, (1, 0))
        if isinstance(p, torch.Tensor):
            reached_before = reached_before & (p < 1.0)  # rounding may sum to 1 early
        guaranteed = guaranteed & ~reached_before
    return guaranteed if real is None else guaranteed & real


def pool_of(keys: torch.Tensor, best: torch.Tensor, guaranteed: torch.Tensor) -> torch.Tensor:
    """The union of the floors: the experts this step loads. [N] bool."""
    least = torch.where(guaranteed, best, ABOVE_ALL).amin(dim=-1, keepdim=True)
    return (keys >= least).any(dim=-2)


def fill(
    keys: torch.Tensor,
    best: torch.Tensor,
    pool: torch.Tensor,
    numbers: Numbers,
    width: int,
    real: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Phase 2: each token's best experts of the pool, its own floor first among them.

    Returns the chosen keys [B, width] (-1 where the pool ran out) and which slots are used.
    """
    open_to = pool[..., None, :].expand_as(keys)
    num_experts = keys.shape[-1]
    if isinstance(numbers.reach, torch.Tensor) or numbers.reach < num_experts:
        ranked = keys.sort(dim=-1, descending=True).values
        last = torch.as_tensor(numbers.reach, device=keys.device).expand(*keys.shape[:-1], 1) - 1
        open_to = open_to & (keys >= ranked.gather(-1, last.long()))
    width = min(width, num_experts)
    chosen = torch.where(open_to, keys, -1).topk(width, dim=-1).values
    used = (chosen >= 0) & (arange(width, keys.device) < numbers.limit)
    return chosen, used if real is None else used & real


def weigh(
    chosen: torch.Tensor,
    used: torch.Tensor,
    pool: torch.Tensor,
    scores: torch.Tensor,
    renormalize: bool,
    real: torch.Tensor | None,
) -> tuple[Routing, torch.Tensor]:
    """The model's own scores over the chosen set; unused slots wake nobody. Also their mass, [B]."""
    ids = expert_of(chosen)
    weights = torch.where(used, scores.gather(-1, ids), 0.0)
    mass = weights.sum(dim=-1, keepdim=True)
    if renormalize:
        weights = weights / (mass + RENORMALIZE_EPSILON)
    best = ids[..., :1]
    spare = best if real is None else torch.where(real, best, pool.int().argmax(dim=-1)[..., None, None])
    return Routing(weights, torch.where(used, ids, spare).int(), pool), mass[..., 0]
