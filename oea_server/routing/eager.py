"""floor -> pool -> fill in vectorised torch, on any device.

Nothing here waits for the device, allocates by a device value or branches on one: the same code
runs under CUDA graph capture, where the number of real rows is only known to the device.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch

from oea_server.routing.policy import Numbers, Policy

RENORMALIZE_EPSILON = 1e-20
"""SGLang's guard against an all-zero row (`sglang.srt.layers.moe.topk`, same value)."""

NUMBERS_MAX_BATCH = 1024
"""Batches above this use the numbers of this size (tables on the device must end somewhere)."""


class Routing(NamedTuple):
    """Which experts each token takes, and which the step wakes."""

    weights: torch.Tensor
    """[B, width] float32; 0 in unused slots and pad rows."""
    ids: torch.Tensor
    """[B, width] int32, best first. Unused slots repeat the token's best expert and pad rows an
    expert of the pool, both with weight 0: they wake nobody."""
    pool: torch.Tensor
    """[N] bool: the experts this step loads."""


def route(
    router_logits: torch.Tensor,
    policy: Policy,
    *,
    k: int,
    renormalize: bool = True,
    num_real: int | torch.Tensor | None = None,
    layer: int = 0,
) -> Routing:
    """Choose experts for one decode step of one MoE layer (arXiv 2511.02237, algorithm 1).

    Args:
        router_logits: [B, N], any float dtype; row i belongs to token i.
        policy: what to guarantee and how to fill.
        k: the model's experts per token.
        renormalize: divide the weights by their sum (Qwen3-MoE's norm_topk_prob).
        num_real: rows that are tokens; the rest pad a CUDA graph. None means all; a 0-d integer
            tensor on the logits' device keeps the count out of the graph.
        layer: selects a per-layer k0 and separates random draws.

    Returns:
        Routing: weights [B, width] float32, ids [B, width] int32, pool [N] bool, where width is k
        (or k_max if that is more). Ties go to the lowest expert id.

    Raises:
        ValueError: k or a knob is out of bounds for N experts.
    """
    batch, num_experts = router_logits.shape
    if not 1 <= k <= num_experts:
        raise ValueError(f"k={k} is outside 1..{num_experts}, the number of experts")
    policy.check(k=k, num_experts=num_experts)

    scores = router_logits.float().softmax(dim=-1)
    keys = sort_keys(scores) if policy.name != "random" else random_keys(router_logits, policy.seed, layer)
    numbers = _numbers(policy, batch if num_real is None else num_real, layer, k, num_experts, scores.device)
    real = None if num_real is None else (_arange(batch, scores.device) < num_real)[:, None]

    best = keys.topk(k, dim=-1).values
    guaranteed = floor(best, scores, numbers, policy.p, real)
    pool = pool_of(best, guaranteed, num_experts)
    chosen, used = fill(keys, best, pool, numbers, policy.width(k), real)
    return weigh(chosen, used, pool, scores, renormalize, real)


def floor(
    best: torch.Tensor, scores: torch.Tensor, numbers: Numbers, p: float, real: torch.Tensor | None
) -> torch.Tensor:
    """Phase 1: which of its own top k each token is guaranteed. [B, k] bool."""
    rank = _arange(best.shape[1], best.device)
    guaranteed = (rank < numbers.floor).expand(best.shape)
    if p < 1.0:
        mass = scores.gather(1, expert_of(best)).double().cumsum(dim=-1)
        reached_before = torch.nn.functional.pad(mass[:, :-1] >= p, (1, 0))
        guaranteed = guaranteed & ~reached_before
    return guaranteed if real is None else guaranteed & real


def pool_of(best: torch.Tensor, guaranteed: torch.Tensor, num_experts: int) -> torch.Tensor:
    """The union of the floors: the experts this step loads. [N] bool."""
    ids = torch.where(guaranteed, expert_of(best), num_experts)
    awake = torch.zeros(num_experts + 1, dtype=torch.bool, device=best.device)
    return awake.index_fill_(0, ids.flatten(), True)[:num_experts]


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
    open_to = pool.expand_as(keys)
    num_experts = keys.shape[1]
    if isinstance(numbers.reach, torch.Tensor) or numbers.reach < num_experts:
        ranked = keys.sort(dim=-1, descending=True).values
        last = torch.as_tensor(numbers.reach, device=keys.device).expand(len(keys), 1) - 1
        open_to = open_to & (keys >= ranked.gather(1, last.long()))
    width = min(width, num_experts)
    chosen = torch.where(open_to, keys, -1).topk(width, dim=-1).values
    used = (chosen >= 0) & (_arange(width, keys.device) < numbers.limit)
    return chosen, used if real is None else used & real


def weigh(
    chosen: torch.Tensor,
    used: torch.Tensor,
    pool: torch.Tensor,
    scores: torch.Tensor,
    renormalize: bool,
    real: torch.Tensor | None,
) -> Routing:
    """The model's own scores over the chosen set; unused slots wake nobody."""
    ids = expert_of(chosen)
    weights = torch.where(used, scores.gather(1, ids), 0.0)
    if renormalize:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + RENORMALIZE_EPSILON)
    spare = ids[:, :1] if real is None else torch.where(real, ids[:, :1], pool.int().argmax())
    return Routing(weights, torch.where(used, ids, spare).int(), pool)


# Sort keys are distinct integers that rank experts by score and, at equal scores, by lowest id,
# so that top-k is the same on every device and every rank. The low bits hold the expert, inverted.
_ID_BITS = 16
_ID_MASK = (1 << _ID_BITS) - 1


def sort_keys(scores: torch.Tensor) -> torch.Tensor:
    """[B, N] non-negative float32 scores -> [B, N] int64 keys, higher is better."""
    return (scores.view(torch.int32).long() << _ID_BITS) | _inverted_ids(scores.shape[1], scores.device)


def expert_of(keys: torch.Tensor) -> torch.Tensor:
    """The expert a key stands for; a key of -1 (none) gives expert 0."""
    return ~keys & _ID_MASK


def random_keys(router_logits: torch.Tensor, seed: int, layer: int) -> torch.Tensor:
    """[B, N] int64 keys in uniformly random order, a pure function of its arguments.

    A hash rather than a generator: it is the same on all ranks, differs from step to step because
    the logits do, and can be captured in a CUDA graph.
    """
    rows, experts = router_logits.shape
    device = router_logits.device
    bits = router_logits.float().view(torch.int32).long() & 0xFFFFFFFF
    place = _arange(rows, device)[:, None] * 65_599 + _arange(experts, device)
    mixed = _mix(bits + 0x9E3779B9 * (place + 1) + 0x85EBCA6B * (layer + 1) + 0xC2B2AE35 * (seed + 1))
    return (mixed << _ID_BITS) | _inverted_ids(experts, device)


def _mix(x: torch.Tensor) -> torch.Tensor:
    """murmur3's finaliser on 32 bits, in int64 arithmetic; the top bit is dropped."""
    x = x & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return (x ^ (x >> 16)) & 0x7FFFFFFF


def _numbers(
    policy: Policy, num_real: int | torch.Tensor, layer: int, k: int, num_experts: int, device: torch.device
) -> Numbers:
    if isinstance(num_real, int):
        return policy.numbers(num_real, layer, k=k, num_experts=num_experts)
    table = _numbers_table(policy, layer, k, num_experts, device)
    # 0-d tensors in place of the three ints: everything above only compares with them
    return Numbers(*table[num_real.clamp(max=NUMBERS_MAX_BATCH).long()].unbind())  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def _numbers_table(policy: Policy, layer: int, k: int, num_experts: int, device: torch.device) -> torch.Tensor:
    batches = range(NUMBERS_MAX_BATCH + 1)
    rows = [policy.numbers(batch, layer, k=k, num_experts=num_experts) for batch in batches]
    return torch.tensor(rows, dtype=torch.int32, device=device)


@lru_cache(maxsize=256)
def _arange(n: int, device: torch.device) -> torch.Tensor:
    return torch.arange(n, device=device)


@lru_cache(maxsize=64)
def _inverted_ids(num_experts: int, device: torch.device) -> torch.Tensor:
    return ~torch.arange(num_experts, device=device) & _ID_MASK
