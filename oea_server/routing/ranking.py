"""Sort keys: distinct integers that rank a token's experts, so that top-k is the same everywhere.

An expert's key holds the router's preference in its high bits and the expert's inverted id in its
low ones: equal preferences go to the lowest id, on every device and every rank.
"""

from __future__ import annotations

from functools import cache

import torch

ID_BITS = 16
ID_MASK = (1 << ID_BITS) - 1
OFFSET = 1 << (31 + ID_BITS)
"""Lifts the smallest float32's key to zero, so that -1 can mean none."""


def sort_keys(preference: torch.Tensor) -> torch.Tensor:
    """[..., N] float32 -> [..., N] int64 keys, higher is better, all >= 0."""
    bits = preference.view(torch.int32)
    # negative floats run backwards; -0.0 is 0.0
    ordered = torch.where(bits < 0, -(1 << 31) - bits, bits)
    return torch.add(
        _low_bits(preference.shape[-1], preference.device), ordered, alpha=1 << ID_BITS
    )


def expert_of(keys: torch.Tensor) -> torch.Tensor:
    """The expert a key stands for; a key of -1 (none) gives expert 0."""
    return ~keys & ID_MASK


def random_keys(router_logits: torch.Tensor, seed: int | torch.Tensor, layer: int) -> torch.Tensor:
    """[B, N] int64 keys in uniformly random order, a pure function of its arguments.

    A hash rather than a generator: it is the same on all ranks, differs from step to step because
    the logits do, and can be captured in a CUDA graph.
    """
    rows, experts = router_logits.shape
    device = router_logits.device
    bits = router_logits.float().view(torch.int32).long() & 0xFFFFFFFF
    place = arange(rows, device)[:, None] * 65_599 + arange(experts, device)
    mixed = _mix(
        bits + 0x9E3779B9 * (place + 1) + 0x85EBCA6B * (layer + 1) + 0xC2B2AE35 * (seed + 1)
    )
    return (mixed << ID_BITS) | (~arange(experts, device) & ID_MASK)


def _mix(x: torch.Tensor) -> torch.Tensor:
    """murmur3's finaliser on 32 bits, in int64 arithmetic; its upper 16: all that a 32-bit key has
    room for."""
    x = x & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return x >> 16


def arange(n: int, device: torch.device) -> torch.Tensor:
    """0 … n-1 on a device. Never freed, as a captured graph may read it at every replay; in powers
    of two, so that all sizes together take little."""
    return _up_to(1 << max(n - 1, 0).bit_length(), device)[:n]


@cache
def _up_to(n: int, device: torch.device) -> torch.Tensor:
    return torch.arange(n, device=device)


@cache
def _low_bits(num_experts: int, device: torch.device) -> torch.Tensor:
    return (~torch.arange(num_experts, device=device) & ID_MASK) + OFFSET
