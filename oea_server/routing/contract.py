"""What goes into a routing and what comes out: the model's router, the rows of a step, the experts
that they take.

All implementations of `oea_server.routing.route` keep to it. Fields are added, none changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch

from oea_server.routing.knobs import Knobs
from oea_server.routing.placement import Placement, contiguous
from oea_server.routing.policy import POOLS, Policy, Room
from oea_server.routing.ranking import arange

RENORMALIZE_EPSILON = 1e-20
"""SGLang's guard against an all-zero row (`sglang.srt.layers.moe.topk`, same value)."""

Scoring = Literal["softmax", "sigmoid", "sqrtsoftplus"]
GroupScore = Literal["top2", "max"]
SCORINGS: tuple[Scoring, ...] = get_args(Scoring)


@dataclass(frozen=True, slots=True, eq=False)
class Router:
    """How a model turns router logits into experts and weights
    (`sglang.srt.layers.moe.topk.TopKConfig`).

    Args:
        k: experts per token.
        renormalize: divide the weights by their sum (Qwen3-MoE's norm_topk_prob).
        scoring: how logits become scores. Qwen3-MoE: softmax; DeepSeek-V3, GLM-4.5: sigmoid;
            DeepSeek-V4: sqrtsoftplus, the root of log(1 + exp(logit)).
        bias: [N] of any float dtype, added to the scores to choose, never to weigh (DeepSeek-V3's
            e_score_correction_bias).
        groups: equal, contiguous groups of the experts; a token takes experts of its best groups
            alone.
        top_groups: how many of them.
        group_score: what a group is worth to a token: the sum of its two best (DeepSeek-V3, with
            the bias) or its best (DeepSeek-V2).
        scale: multiplies the weights, last (routed_scaling_factor).
        expert_scale: [N] of any float dtype, multiplies each expert's weight after they were
            divided (Gemma-4's per_expert_scale).
        zero_experts: how many experts, the last ones, compute nothing (LongCat-Flash): they are
            awake in every step, loaded in none, and counted nowhere. On one rank only.

    Raises:
        ValueError: a field is out of bounds; the message names it, its value and the bounds.
    """

    k: int
    renormalize: bool = True
    scoring: Scoring = "softmax"
    bias: torch.Tensor | None = None
    groups: int = 1
    top_groups: int = 1
    group_score: GroupScore = "top2"
    scale: float = 1.0
    expert_scale: torch.Tensor | None = None
    zero_experts: int = 0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k={self.k} is below 1")
        if self.scoring not in SCORINGS:
            raise ValueError(f"scoring={self.scoring} is none of {', '.join(SCORINGS)}")
        if self.groups < 1:
            raise ValueError(f"groups={self.groups} is below 1")
        if not 1 <= self.top_groups <= self.groups:
            raise ValueError(
                f"top_groups={self.top_groups} is outside 1..{self.groups}, the number of groups"
            )
        if self.group_score not in get_args(GroupScore):
            raise ValueError(
                f"group_score={self.group_score} is none of {', '.join(get_args(GroupScore))}"
            )
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale={self.scale} is not above 0")
        if self.zero_experts < 0:
            raise ValueError(f"zero_experts={self.zero_experts} is below 0")

    @property
    def kind(self) -> tuple[object, ...]:
        """What a launch is compiled for."""
        tensors = (None if each is None else each.dtype for each in (self.bias, self.expert_scale))
        groups = (self.groups, self.top_groups, self.group_score)
        return (self.k, self.renormalize, self.scoring, *tensors, *groups, self.zero_experts)

    def check(self, num_experts: int) -> None:
        """Raise ValueError where the router does not fit `num_experts` experts."""
        if self.k > num_experts:
            raise ValueError(f"k={self.k} is outside 1..{num_experts}, the number of experts")
        if num_experts % self.groups:
            raise ValueError(f"groups={self.groups}: {num_experts} experts do not divide into them")
        if self.k > (most := num_experts // self.groups * self.top_groups):
            raise ValueError(
                f"k={self.k} is above the {most} experts of top_groups={self.top_groups}"
            )
        if self.zero_experts >= num_experts:
            raise ValueError(
                f"zero_experts={self.zero_experts} leaves none of {num_experts} experts"
            )
        for name, each in (("bias", self.bias), ("expert_scale", self.expert_scale)):
            if each is not None and each.numel() != num_experts:
                raise ValueError(f"{name} has {each.numel()} numbers for {num_experts} experts")


class Routing(NamedTuple):
    """Which experts each token takes, and which the step wakes."""

    weights: torch.Tensor
    """[B, width] float32; 0 in unused slots and pad rows."""
    ids: torch.Tensor
    """[B, width] int32, best first. Unused slots repeat the token's best expert and pad rows an
    expert of the pool, both with weight 0: they wake nobody. So do broken rows, with weight NaN."""
    pool: torch.Tensor
    """[N] bool: the experts this step loads."""


def check(
    router_logits: torch.Tensor,
    policy: Policy | Knobs,
    router: Router,
    row_k0: torch.Tensor | None,
    drafts: torch.Tensor | None,
) -> None:
    """Raise ValueError where the arguments do not fit one another.

    Args:
        policy: knobs in device memory were checked when they were written.
    """
    batch, num_experts = router_logits.shape[-2:]
    check_model(policy, router, num_experts)
    check_rows(batch, row_k0, drafts)


def check_model(policy: Policy | Knobs, router: Router, num_experts: int) -> None:
    """Check what stays as it is from step to step."""
    router.check(num_experts)
    if isinstance(policy, Policy):
        policy.check(k=router.k, num_experts=num_experts)
        if router.zero_experts and policy.ranks > 1:
            raise ValueError(f"ranks={policy.ranks}: experts that compute nothing lie on no rank")


def check_rows(batch: int, row_k0: torch.Tensor | None, drafts: torch.Tensor | None) -> None:
    """Check the numbers that each row may have."""
    for name, numbers in (("row_k0", row_k0), ("drafts", drafts)):
        if numbers is not None and (numbers.shape != (batch,) or numbers.dtype.is_floating_point):
            given = f"{numbers.dtype} {list(numbers.shape)}"
            raise ValueError(f"{name} is {given}, not integers [{batch}], one for each row")


def real_rows(
    batch: int, num_real: int | torch.Tensor | None, device: torch.device
) -> torch.Tensor:
    """Which rows are tokens, [B] bool: all of them, the first so many, or those of a mask."""
    if num_real is None:
        return torch.ones(batch, dtype=torch.bool, device=device)
    if isinstance(num_real, torch.Tensor) and num_real.dtype == torch.bool:
        if num_real.shape != (batch,):
            raise ValueError(
                f"num_real is a mask {list(num_real.shape)}, not [{batch}], one for each row"
            )
        return num_real
    return arange(batch, device) < num_real


def kind_of(num_real: int | torch.Tensor | None) -> str:
    """How the kernel learns which rows are tokens."""
    if not isinstance(num_real, torch.Tensor):
        return "host"
    return "mask" if num_real.dtype == torch.bool else "device"


def placement_of(
    policy: Policy | Knobs, placement: Placement | None, num_experts: int, device: torch.device
) -> Placement | None:
    """Where the experts lie; None where the answer makes no difference.

    Of knobs the host knows the pool as it is now: a graph that was captured without a budget cannot
    get one later."""
    ranks = policy.ranks if isinstance(policy, Policy) else 1
    if placement is not None or policy.pool == "union" or (policy.pool == "fill" and ranks == 1):
        return placement
    return contiguous(num_experts, ranks, device)


def is_union(room: Room, ranks: int) -> bool:
    """Whether a pool is the union of the floors, as far as the host knows."""
    return isinstance(room.kind, int) and POOLS[room.kind] in (
        ("union", "fill") if ranks == 1 else ("union",)
    )


def width_of(policy: Policy | Knobs, k: int) -> int:
    """Columns of the routing: k, or k_max where that is more; live knobs never change it."""
    return policy.width(k) if isinstance(policy, Policy) else k
