"""What the steps woke, counted on the device inside the step and read outside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from oea_server.routing.contract import real_rows
from oea_server.routing.records import Records

Array = npt.NDArray[np.bool_]

MASS_UNIT = 1 << 20
"""Router mass is summed in integers of 1 / MASS_UNIT: exact, and the same in any order."""

ALL = 1 << 15
"""Experts that a row is guaranteed where it takes its own top k anyway."""

HISTOGRAMS = 4
UNIQUE, BUSIEST, VANILLA, VANILLA_BUSIEST = range(HISTOGRAMS)
"""A layer's row of counters: these histograms of N + 1 bins each, one after the other, then the
sums."""
SUMS = ("tokens", "assignments", "piggybacked", "mass_kept")
TOKENS, ASSIGNMENTS, PIGGYBACKED, MASS_KEPT = range(len(SUMS))
VERIFIED = ("accepted_rows", "rejected_experts")
ACCEPTED_ROWS, REJECTED_EXPERTS = range(len(VERIFIED))
"""Counters before the histograms: known of a step only once its drafts are accepted or rejected."""


class Tally:
    """Histograms and sums per MoE layer, over counted decode steps.

    The counters only grow and are never reset, so a reader that races a writer sees a number that
    was true a moment ago.

    Args:
        layers: the layer ids to count.
        num_experts: experts whose weights a rank group holds (replicas included).
        ranks: expert-parallel ranks, each holding an equal, contiguous share of them (of physical
            experts, under EPLB).
        device: where the routing happens.
        placed: whether a map stands between a router's expert and the one that is loaded (EPLB).
            Routing then cannot know what is loaded; `loaded` says it, from the mapped ids.

    Raises:
        ValueError: the experts do not divide over the ranks.
    """

    def __init__(
        self,
        layers: Sequence[int],
        num_experts: int,
        ranks: int,
        device: torch.device,
        placed: bool = False,
    ) -> None:
        if num_experts % ranks:
            raise ValueError(f"{num_experts} experts do not divide over {ranks} ranks")
        self.num_experts = num_experts
        self.ranks = ranks
        self.placed = placed
        self.row = {layer: row for row, layer in enumerate(layers)}
        bins = num_experts + 1
        width = len(VERIFIED) + HISTOGRAMS * bins + len(SUMS)
        self.data = torch.zeros(len(layers), width, dtype=torch.int64, device=device)
        """[layers, 2 + 4 (N + 1) + 4]: all of it in one piece, so that one copy reads it."""
        self.verified = self.data[:, : len(VERIFIED)]
        """[layers, 2]: rows that were accepted, the tokens' own among them; experts that only the
        others woke."""
        self.counted = self.data[:, len(VERIFIED) :]
        """[layers, 4 (N + 1) + 4]: what is counted in the step."""
        histograms = self.counted[:, : HISTOGRAMS * bins].view(len(layers), HISTOGRAMS, bins)
        self.unique, self.busiest, self.vanilla, self.vanilla_busiest = histograms.unbind(1)
        """Four histograms of [layers, N + 1]: steps in which a layer woke exactly so many experts.
        In order: all experts, the busiest rank's, and both for the model's own top k."""
        self.sums = self.counted[:, HISTOGRAMS * bins :]
        """[layers, 4]: tokens; experts that they took; experts above the floor, found awake; mass
        kept. Mass kept is summed over tokens: the share of the router mass of a token's own top k
        that its experts hold."""
        self.counting = torch.ones((), dtype=torch.int64, device=device)
        """0 while steps are not to be counted (warm-up, capture, health checks)."""
        held = num_experts, ranks, int(placed)
        self.at = {
            layer: (self.counted[row].data_ptr(), self.counting.data_ptr(), *held, 0, 0)
            for layer, row in self.row.items()
        }
        """Addresses of each layer's row of `counted` and of `counting`, and what else
        `routing.entry` asks for. The last two are where the layer's rows go, and how many have room
        there (`HostTally.watch`)."""
        self.watching = False
        """Whether what each row of a step keeps is written down besides."""
        self.records: Records | None = None
        """What the launches on a GPU write down of a step, to be counted by one more
        (`counting`)."""
        self.by_step = False
        """Whether that one runs after the last of the layers alone; else after each."""

    def ends(self, layer: int) -> bool:
        """Whether what the layers' launches have written down is counted after this one."""
        return not self.by_step or self.row[layer] == len(self.row) - 1

    def add_vanilla(
        self, layer: int, ids: torch.Tensor, num_real: int | torch.Tensor | None
    ) -> None:
        """Count a step that ran the model's own top k.

        Args:
            ids: [B, k] experts as they are loaded (mapped, if a map there is); -1 loads nothing,
                nor do ids beyond.
        """
        awake = awake_of(ids, self.num_experts, num_real)
        self.add_loaded(layer, awake)
        tokens = real_rows(len(ids), num_real, ids.device).sum()
        taken = tokens * ids.shape[1]
        self._add(layer, awake, awake, (tokens, taken, torch.zeros_like(taken), tokens * MASS_UNIT))

    def add_routed(
        self,
        layer: int,
        pool: torch.Tensor,
        vanilla: torch.Tensor,
        guaranteed: torch.Tensor,
        used: torch.Tensor,
        kept: torch.Tensor,
        num_real: int | torch.Tensor | None,
        home: torch.Tensor | None = None,
    ) -> None:
        """Count a step that a policy routed. No host sync.

        Args:
            pool: [N] bool, what the step loads.
            vanilla: [B, k], each token's own top k; -1 in a broken row.
            guaranteed: [B, k] bool, its floor; False in pad rows.
            used: [B, width] bool, the slots that it takes; False in pad rows.
            kept: [B] share of its top k's router mass that the experts it takes hold. Counted from
                0 (NaN too) to as many as it takes: more only a router can whose bias prefers
                experts that weigh next to nothing.
            home: [N], the physical expert that each is read from; as numbered, if not given.
        """
        if not self.placed:
            self.add_loaded(layer, self._at_home(pool, home))
        real = real_rows(len(kept), num_real, kept.device)
        each = used.sum(dim=-1)
        taken = each.sum()
        share = torch.where(real & (kept > 0), kept, 0.0)  # and not NaN
        mass = (torch.minimum(share, each) * MASS_UNIT + 0.5).long().sum()
        awake = awake_of(vanilla, len(pool), num_real)
        sums = (real.sum(), taken, taken - guaranteed.sum(), mass)
        self._add(layer, awake, self._at_home(awake, home) if self._ranked(home) else None, sums)

    def add_loaded(self, layer: int, awake: torch.Tensor) -> None:
        """Count the experts that a step loaded. awake [num_experts] bool."""
        self._count(self.unique, layer, awake.sum())
        if self.ranks > 1:
            self._count(self.busiest, layer, awake.view(self.ranks, -1).sum(dim=1).max())

    def add_loaded_ids(
        self, layer: int, ids: torch.Tensor, num_real: int | torch.Tensor | None
    ) -> None:
        """Count the experts that a step loaded, by ids as `add_vanilla` takes them."""
        self.add_loaded(layer, awake_of(ids, self.num_experts, num_real))

    def _ranked(self, home: torch.Tensor | None) -> bool:
        """Whether the rank is known on which an unchosen expert would be read."""
        return self.ranks > 1 and not (self.placed and home is None)

    def _add(
        self,
        layer: int,
        vanilla: torch.Tensor,
        at_home: torch.Tensor | None,
        sums: tuple[torch.Tensor, ...],
    ) -> None:
        self._count(self.vanilla, layer, vanilla.sum())
        if at_home is not None and self.ranks > 1:
            self._count(self.vanilla_busiest, layer, at_home.view(self.ranks, -1).sum(dim=1).max())
        self.sums[self.row[layer]] += torch.stack(sums) * self.counting

    def _at_home(self, experts: torch.Tensor, home: torch.Tensor | None) -> torch.Tensor:
        """[N] bool -> [num_experts] bool."""
        if home is None:
            return experts
        awake = torch.zeros(self.num_experts, dtype=torch.bool, device=experts.device)
        return awake.index_copy_(0, home.long(), experts)

    def _count(self, histogram: torch.Tensor, layer: int, value: torch.Tensor) -> None:
        histogram[self.row[layer]].index_add_(0, value.view(1), self.counting.view(1))


class HostTally(Tally):
    """A `Tally` on the CPU, by numpy on the tensors' own memory: an eighth of the time, on tensors
    this small."""

    def __init__(
        self, layers: Sequence[int], num_experts: int, ranks: int, placed: bool = False
    ) -> None:
        super().__init__(layers, num_experts, ranks, torch.device("cpu"), placed)
        self._unique, self._busiest, self._vanilla, self._vanilla_busiest, self._sums = (
            counters.numpy()
            for counters in (
                self.unique,
                self.busiest,
                self.vanilla,
                self.vanilla_busiest,
                self.sums,
            )
        )
        self.counting_on_host = self.counting.numpy()
        self._unwatched, self._watched = self.at, self.at
        self._rows = np.empty((len(self.row), 0, 2), dtype=np.int64)

    def watch(self, rows: int) -> None:
        """Write down what each of a step's rows keeps, until `watched` reads it."""
        if self._rows.shape[1] < rows:
            self._rows = np.empty((len(self.row), rows, 2), dtype=np.int64)
            at = self._rows.ctypes.data
            self._watched = {
                layer: (*held[:-2], at + row * self._rows[0].nbytes, rows)
                for row, (layer, held) in enumerate(self._unwatched.items())
            }
        self._rows[:] = MASS_UNIT, ALL  # as it is where SGLang's own top k routes
        self.at, self.watching = self._watched, True

    def watched(self) -> npt.NDArray[np.int64]:
        """[layers, rows, 2]: mass kept in units of 1 / MASS_UNIT, and experts guaranteed. Mass kept
        is the share of its own top k's router mass that a row keeps; the experts are a row's own
        best."""
        self.at, self.watching = self._unwatched, False
        return self._rows

    def add_vanilla(
        self, layer: int, ids: torch.Tensor, num_real: int | torch.Tensor | None
    ) -> None:
        real = real_rows(len(ids), num_real, ids.device).numpy()
        tokens = int(np.count_nonzero(real))
        awake = np.zeros(self.num_experts + 1, dtype=bool)
        ids_of_tokens = ids.numpy()[real]
        # the last column
        awake[np.where(ids_of_tokens < self.num_experts, np.maximum(ids_of_tokens, -1), -1)] = True
        self._load(layer, awake[:-1])
        self._end(
            layer, awake[:-1], awake[:-1], (tokens, tokens * ids.shape[1], 0, tokens * MASS_UNIT)
        )

    def add_loaded(self, layer: int, awake: torch.Tensor) -> None:
        self._load(layer, awake.numpy())

    def _load(self, layer: int, awake: Array) -> None:
        row = self.row[layer]
        self._unique[row, np.count_nonzero(awake)] += self.counting_on_host
        if self.ranks > 1:
            self._busiest[row, awake.reshape(self.ranks, -1).sum(axis=1).max()] += (
                self.counting_on_host
            )

    def _end(
        self, layer: int, vanilla: Array, at_home: Array | None, sums: tuple[int, ...]
    ) -> None:
        row = self.row[layer]
        if at_home is not None and self.ranks > 1:
            busiest = at_home.reshape(self.ranks, -1).sum(axis=1).max()
            self._vanilla_busiest[row, busiest] += self.counting_on_host
        self._vanilla[row, np.count_nonzero(vanilla)] += self.counting_on_host
        self._sums[row] += np.multiply(sums, self.counting_on_host)


def tally_on(
    device: torch.device, layers: Sequence[int], num_experts: int, ranks: int, placed: bool
) -> Tally:
    """The tally for a device."""
    if device.type == "cpu":
        return HostTally(layers, num_experts, ranks, placed)
    if device.type == "cuda":
        from oea_server.routing.device_tally import DeviceTally

        return DeviceTally(layers, num_experts, ranks, device, placed)
    return Tally(layers, num_experts, ranks, device, placed)


def awake_of(
    ids: torch.Tensor, num_experts: int, num_real: int | torch.Tensor | None = None
) -> torch.Tensor:
    """The experts that rows of ids wake; -1, ids beyond them and pad rows wake none. [B, k] ->
    [num_experts] bool."""
    ids = torch.where(real_rows(len(ids), num_real, ids.device)[:, None], ids, -1)
    where = (
        torch.where((ids < 0) | (ids > num_experts), num_experts, ids).long().flatten()
    )  # a last column takes what wakes nobody
    awake = torch.zeros(num_experts + 1, dtype=torch.bool, device=ids.device)
    return awake.index_fill_(0, where, True)[:num_experts]
