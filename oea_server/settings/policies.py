"""What the knobs ask for: the policies that serve and are counted, and whether a model has them."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from oea_server.routing.calibrated import calibrated
from oea_server.routing.policy import Policy
from oea_server.routing.schedule import (
    MIX,
    SHARE,
    Knob,
    Schedule,
    default_schedule,
    number_or_schedule,
)
from oea_server.settings.knobs import Knobs, live_names
from oea_server.settings.names import variable_of
from oea_server.tiers import binding, table


class Settings(Knobs):
    """The knobs of a server, which fit each other; whether they fit a model, `check` says."""

    @model_validator(mode="after")
    def _knobs_fit_together(self) -> Settings:
        self._oea(k=None)  # whatever the policy: it can be switched while serving
        tiers = table.parse(self.tiers)
        if self.default_tier is not None and self.default_tier not in tiers:
            there = ", ".join(tiers) or "none"
            raise ValueError(f"default_tier={self.default_tier}: no such tier; there are {there}")
        if self.tier_header is not None and (problem := binding.header_problem(self.tier_header)):
            raise ValueError(problem)
        for name in ("tier_header", "tier_keys"):
            if (value := getattr(self, name)) is not None and not tiers:
                raise ValueError(
                    f"{name}={value}: without tiers nothing can be bound to one; give tiers"
                )
        return self

    def policy_for(self, k: int) -> Policy:
        """The policy that serves, for a model with top-k `k`."""
        match self.policy:
            case "vanilla" | "shadow":
                return Policy.vanilla()
            case "random":
                return Policy.random(self.seed)
            case "pruned":
                return Policy.pruned(self._schedule(k))
        return self._oea(k)

    def shadow_for(self, k: int) -> Policy | None:
        """The policy that is only counted beside the one that serves; None if there is none."""
        return self._oea(k) if self.policy == "shadow" else None

    def check(self, *, k: int, num_experts: int, renormalize: bool = True) -> None:
        """Check the knobs against a model with `num_experts` experts of which each token takes `k`.

        Args:
            renormalize: whether it divides weights by their sum, if that is known.

        Raises:
            ValueError: a knob asks for more than the model has, or for what has no effect there.
        """
        # whatever the policy: it can be switched while serving, and then must find knobs that fit
        self._oea(k).check(k=k, num_experts=num_experts, k_max_bound=k, renormalize=renormalize)
        if self.wish_floor is not None and self.wish_floor > k:
            raise ValueError(f"wish_floor={self.wish_floor} is above the model's top-k {k}")
        if problem := table.problem_of(table.parse(self.tiers), k, 0):
            raise ValueError(problem)

    def check_new(self, k: int, before: Settings | None = None) -> None:
        """Check tiers that are new, for a model with top-k `k`.

        Tiers that were there before are left alone: a change of k0 may lift the server above them.

        Args:
            before: the settings that held until now.

        Raises:
            ValueError: one of them promises less than every token is guaranteed.
        """
        if self.tiers is None or (before is not None and before.tiers == self.tiers):
            return
        least = self.policy_for(k).least
        least = least if self.wish_floor is None else min(least, self.wish_floor)
        if problem := table.problem_of(table.parse(self.tiers), k, least):
            raise ValueError(problem)

    def live(self) -> dict[str, Any]:
        """The knobs that can change while serving, by name."""
        return {name: getattr(self, name) for name in live_names(type(self))}

    def _schedule(self, k: int | None) -> Schedule[int]:
        if self.k0 != "auto":
            return Schedule.of(self.k0)
        if self.pool == "budget" and self.schedule is None:
            return Schedule.of(1)  # the budget is what follows the batch
        return (
            default_schedule(k or 1) if self.schedule is None else calibrated(self.schedule, k).k0
        )

    def _weighed(self, knob: Knob, auto: float, k: int | None) -> float | Schedule[float]:
        """`share` or `mix`: as asked for, or as calibrated, or what changes nothing."""
        asked: str = getattr(self, knob.name)
        if asked != "auto":
            return number_or_schedule(asked, knob)
        found = None if self.schedule is None else calibrated(self.schedule, k)
        value: float | Schedule[float] = getattr(found, knob.name, auto)
        return value

    def _oea(self, k: int | None) -> Policy:
        k0, share = self._schedule(k), self._weighed(SHARE, 0.0, k)
        if share and self.pool == "budget" and self.k0 == "auto" and self.schedule is None:
            raise ValueError(
                f"share={share} has no effect beside k0=auto, which is 1 under pool=budget: "
                "give a k0"
            )
        return Policy.oea(
            k0,
            self.p,
            self.k_max,
            self.max_rank,
            self.min_batch,
            pool=self.pool,
            rank_budget=self.rank_budget,
            share=share,
            mix=self._weighed(MIX, 1.0, k),
            draft_k0=self.draft_k0,
        )

    def environment(self) -> dict[str, str]:
        """The settings as OEA_* variables, defaults included."""
        values = self.model_dump(exclude_none=True)
        return {variable_of(name): str(value) for name, value in values.items()}
