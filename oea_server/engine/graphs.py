"""What the CUDA graphs of decode steps hold: decided at the first capture, and replayed as it was
captured."""

from __future__ import annotations

from oea_server.settings import POLICIES, Settings

HELD = {
    "vanilla": ("SGLang's own kernels, without our routing", ("vanilla",)),
    "shadow": ("SGLang's own kernels, with our counting beside them", ("vanilla", "shadow")),
    "ours": ("our routing, without shadow's counting", ("oea", "vanilla", "pruned", "random")),
}
"""What graphs can hold, and the policies that can then be switched to. A graph is replayed as it
was captured, but for the numbers that it reads."""


class Graphs:
    """The decode graphs of a process: none before the first capture."""

    def __init__(self) -> None:
        self.held: str | None = None
        """A key of HELD. A later capture, whatever the policy is by then, must not take our routing
        away."""
        self.bounded = True
        """Whether steps can be held to a budget of experts: on one rank, graphs captured without
        one cannot."""
        self.sizes: set[tuple[int, int]] = set()
        """In rows, of which each request has so many."""
        self.pads = True
        """Whether a step that no graph fits is padded to the next larger one."""

    def capture(self, size: int, settings: Settings, *, ranked: bool, per_request: int = 1) -> bool:
        """Remember a graph of so many rows, captured under `settings`. Whether it is the first of
        its size.

        Args:
            per_request: of them; whole requests pad a step.
            ranked: whether pools know the ranks, whatever the settings are.
        """
        if self.held is None:
            self.held = settings.policy if settings.policy in HELD else "ours"
            self.bounded = settings.pool == "budget" or ranked
        first = (size, per_request) not in self.sizes
        self.sizes.add((size, per_request))
        return first

    def rows_of(self, batch: int, per_request: int = 1) -> int:
        """The rows that a step of `batch` rows runs: those of the graph that it replays, if there
        is one."""
        if not self.pads:
            return batch
        return min(
            (size for size, each in self.sizes if each == per_request and size >= batch),
            default=batch,
        )

    @property
    def policies(self) -> tuple[str, ...]:
        """The policies that can be switched to."""
        return POLICIES if self.held is None else HELD[self.held][1]

    @property
    def fixed(self) -> str | None:
        """Why not all policies can be switched to, None if all can."""
        if self.held is None:
            return None
        inside, policies = HELD[self.held]
        return (
            f"CUDA graphs were captured with {inside}: only {' and '.join(policies)} can run in"
            " them; start anew"
        )

    def problem_of(self, settings: Settings) -> str | None:
        """Why settings whose policy can be switched to cannot be replayed, None if they can."""
        if settings.pool == "budget" and not self.bounded:
            return (
                "pool=budget: CUDA graphs were captured without a budget; start anew with"
                " --oea-pool budget"
            )
        return None
