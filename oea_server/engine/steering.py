"""What the settings ask, and which of them can be: changed all at once, between two steps, or not
at all."""

from __future__ import annotations

from typing import NamedTuple

from oea_server.engine.graphs import Graphs
from oea_server.routing.policy import Policy
from oea_server.settings import Settings


class Facts(NamedTuple):
    """What a policy has to fit.

    Args:
        k: experts that the model's tokens take; the least of them, if layers or stages differ.
        num_experts: of a layer.
        renormalize: whether weights are divided by their sum in any layer, as far as this stage
            knows.
    """

    k: int = 0
    num_experts: int = 0
    renormalize: bool = True


DRAFTED = (
    "pool=budget: with speculative decoding a pool is the union of the floors, as more would be"
    " decided by votes of drafts; use pool=union or fill"
)
"""Why settings that count on more do not fit, where steps verify drafts."""


def drafting_problem(settings: Settings, verifies: bool) -> str | None:
    """Why settings do not fit steps that verify drafts, or do not."""
    if verifies:
        return DRAFTED if settings.pool == "budget" else None
    if settings.draft_k0 is not None:
        return (
            f"draft_k0={settings.draft_k0} has no effect: no steps verify drafts without"
            " --speculative-algorithm; leave draft_k0 out"
        )
    return None


class Steering:
    """The settings of a scheduler process: what they were, are, and may become."""

    def __init__(self, settings: Settings, graphs: Graphs) -> None:
        self.settings = self.started_with = settings
        self.graphs = graphs
        self.version = self.asked = 0
        """Changes of the settings since the start; and what was asked for, taken or not."""
        self.ranks_agree = False
        """Whether all ranks that serve together go by the same settings (`engine.agreement`)."""
        self.facts = Facts()
        self.active = False
        self.reason = "no model yet"
        """Why routing is not ours: in no layer (not active), or in some."""
        self.unhandled = ""
        """Why some layers of the model run vanilla whatever the policy is; empty if none does."""
        self.frozen: str | None = "no model yet"
        """Why the settings cannot change, None if they can."""
        self.idle = ""
        """Why this process has no decode steps, whatever the policy is; empty if it has."""
        self.clash = ""
        """The SGLang options that allow vanilla alone, each with its reason
        (`engine.conflicts`)."""
        self.verifies = False
        """Whether steps verify drafts, as far as SGLang's options say."""
        self._pending: tuple[Policy, Policy | None] | None = None

    def adopt(self, facts: Facts, unhandled: str) -> str | None:
        """Fit the settings to a model. Returns why they do not; then nothing has changed."""
        self.facts, self.unhandled, self.frozen = facts, unhandled, None
        problem = self.change(self.settings) or tiers_problem(self.settings, facts.k)
        self.version = 0
        return problem

    def change(self, settings: Settings) -> str | None:
        """Route by `settings` from the next step on. Returns why not; then nothing has changed."""
        if problem := self.problem_of(settings):
            return problem
        k = self.facts.k
        self.settings, self._pending = settings, (settings.policy_for(k), settings.shadow_for(k))
        self.version += 1
        asked = settings.policy not in ("vanilla", "shadow")
        self.active = asked and not self.idle
        self.reason = (self.idle or self.unhandled) if asked else f"the policy is {settings.policy}"
        return None

    def taken(self) -> tuple[Policy, Policy | None] | None:
        """The policy that serves from this step on and the one that is only counted, if a change
        has made them new."""
        pending, self._pending = self._pending, None
        return pending

    def problem_of(self, settings: Settings) -> str | None:
        """Why `settings` cannot be routed by, None if they can."""
        if settings.policy not in self.policies:
            return self.fixed
        if problem := drafting_problem(settings, self.verifies):
            return problem
        if problem := self.graphs.problem_of(settings):
            return problem
        try:
            settings.check(**self.facts._asdict())
        except ValueError as error:
            return str(error)
        return tiers_problem(settings, self.facts.k, self.settings)

    @property
    def policies(self) -> tuple[str, ...]:
        """The policies that can be switched to now."""
        if self.frozen is not None:
            return ()
        return ("vanilla",) if self.clash else self.graphs.policies

    @property
    def fixed(self) -> str | None:
        """Why not all of the policies can be switched to, None if all can."""
        return self.frozen or self.clash or self.graphs.fixed


def tiers_problem(settings: Settings, k: int, before: Settings | None = None) -> str | None:
    """Why tiers cannot be promised (`Settings.check_new`), None if they can."""
    try:
        settings.check_new(k, before)
    except ValueError as error:
        return str(error)
    return None
