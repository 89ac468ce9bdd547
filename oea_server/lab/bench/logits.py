"""Router logits to measure with: uniform, or correlated like a real model's.

Correlated logits are ``a s + sqrt(1 - a²) e``: a step's experts share a popularity s, each token
adds its own noise e. The strength a decides how many experts a batch wakes; the skew c of s
(``sinh(c z) / c`` for c > 0, ``asinh(-c z) / -c`` for c < 0, z normal; the sinh-arcsinh family of
Jones and Pewsey, 2009) decides how much more the tokens' first choices agree than their last ones.
Two numbers, so that two values of the paper are met; what it publishes for the other k0 then says
how well the shape is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Any, Protocol

import torch

from oea_server.lab.bench.paper import BATCH, VANILLA, Published

STEPS = 250
"""Simulated steps of a fit; the mean T then has a standard error of about 0.5 %."""
SKEWS = (-2.0, 1.0)
"""Where the skew is looked for."""
HALVINGS = 9
STRONGEST = 0.999
QUANTILES = 4096


class Source(Protocol):
    """Where logits come from."""

    @property
    def kind(self) -> str:
        """uniform, correlated or trace."""
        ...

    def draw(
        self, steps: int, batch: int, num_experts: int, generator: torch.Generator
    ) -> torch.Tensor:
        """[steps, batch, num_experts] float32 on the CPU."""
        ...

    def facts(self) -> dict[str, Any]:
        """The source as JSON holds it."""
        ...


@dataclass(frozen=True, slots=True)
class Uniform:
    """Independent normal logits: every expert is as likely as any other."""

    kind: str = "uniform"

    def draw(
        self, steps: int, batch: int, num_experts: int, generator: torch.Generator
    ) -> torch.Tensor:
        """See `Source`."""
        return torch.randn(steps, batch, num_experts, generator=generator)

    def facts(self) -> dict[str, Any]:
        """See `Source`."""
        return {"kind": self.kind, "what": "independent normal"}


@dataclass(frozen=True, slots=True)
class Correlated:
    """Logits with a popularity that a step's tokens share."""

    strength: float
    """0 (independent tokens) to 1 (all tokens alike)."""
    skew: float
    """0: normal popularity; above: a few experts stand out; below: none does."""
    like: Published
    achieved: tuple[tuple[int, float], ...] = ()
    """(k0, mean T) at the paper's batch size, as simulated when the two numbers were fitted."""
    kind: str = "correlated"

    def draw(
        self, steps: int, batch: int, num_experts: int, generator: torch.Generator
    ) -> torch.Tensor:
        """See `Source`. Every step has its own popularity."""
        popularity = shaped(torch.randn(steps, 1, num_experts, generator=generator), self.skew)
        noise = torch.randn(steps, batch, num_experts, generator=generator)
        return mix(popularity, noise, self.strength)

    def facts(self) -> dict[str, Any]:
        """See `Source`."""
        return {
            "kind": self.kind,
            "what": (
                f"shared popularity, fitted to the paper's T of {self.like.model} at batch {BATCH}"
            ),
            "strength": self.strength,
            "skew": self.skew,
            "fitted_to_k0": [self.like.anchor, VANILLA],
            "experts": {str(k0): value for k0, value in self.achieved},
        }


def shaped(z: torch.Tensor, skew: float) -> torch.Tensor:
    """Normal numbers with lighter or heavier tails, again of unit variance."""
    bend = _bend(skew)
    grid = torch.special.ndtri((torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES)
    return bend(z) / float(bend(grid).square().mean().sqrt())


def mix(popularity: torch.Tensor, noise: torch.Tensor, strength: float) -> torch.Tensor:
    """Logits of unit variance. popularity [steps, 1, N], noise [steps, B, N]."""
    return strength * popularity + sqrt(1 - strength**2) * noise


def mean_experts(logits: torch.Tensor, k: int) -> float:
    """Mean number of unique experts when every token takes its top k. logits [steps, B, N]."""
    steps, _, num_experts = logits.shape
    awake = torch.zeros(steps, num_experts, dtype=torch.bool)
    awake.scatter_(1, logits.topk(k, dim=-1).indices.flatten(1), True)
    return float(awake.sum(dim=1).double().mean())


@lru_cache(maxsize=8)
def _fitted(
    anchor: int, anchor_experts: float, vanilla_experts: float, num_experts: int
) -> tuple[float, float]:
    """(strength, skew) that reach both values of T, by bisection within bisection on fixed random
    numbers."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(STEPS, 1, num_experts, generator=generator)
    noise = torch.randn(STEPS, BATCH, num_experts, generator=generator)

    def strength_of(skew: float) -> float:
        popularity = shaped(z, skew)

        def too_weak(strength: float) -> bool:
            return mean_experts(mix(popularity, noise, strength), VANILLA) > vanilla_experts

        return _bisect(0.0, STRONGEST, too_weak)

    def too_light(skew: float) -> bool:
        return mean_experts(mix(shaped(z, skew), noise, strength_of(skew)), anchor) > anchor_experts

    skew = _bisect(*SKEWS, too_light)
    return strength_of(skew), skew


def correlated_like(published: Published, num_experts: int) -> Correlated:
    """Logits that wake as many experts as the paper saw, for vanilla and at its headline's k0.

    The fit is seeded and takes some seconds. At other batch sizes the same two numbers are used:
    the paper publishes T at batch 16 only."""
    anchor = published.anchor
    strength, skew = _fitted(
        anchor, published.experts[anchor], published.experts[VANILLA], num_experts
    )
    source = Correlated(strength, skew, published)
    # other random numbers than the fit's: what is reported was not fitted to
    sample = source.draw(STEPS, BATCH, num_experts, torch.Generator().manual_seed(1))
    return Correlated(
        strength,
        skew,
        published,
        tuple((k0, mean_experts(sample, k0)) for k0 in sorted(published.experts)),
    )


def _bend(skew: float) -> Callable[[torch.Tensor], torch.Tensor]:
    if skew > 0:
        return lambda z: torch.sinh(skew * z) / skew
    if skew < 0:
        return lambda z: torch.asinh(-skew * z) / -skew
    return lambda z: z


def _bisect(low: float, high: float, go_up: Callable[[float], bool]) -> float:
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if go_up(middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2
