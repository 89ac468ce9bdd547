"""A tally on a GPU, which counts what SGLang's own top k chose in one launch. By torch's operators
the count would be dozens of launches, in every layer of a captured graph."""

from __future__ import annotations

import torch
import triton

from oea_server.routing.contract import kind_of
from oea_server.routing.count_kernel import CHUNK, count_kernel
from oea_server.routing.counting import count
from oea_server.routing.tally import Tally

MAX_EXPERTS = 1024
"""Beyond, a program would hold more counters than it has registers for."""


class DeviceTally(Tally):
    """A `Tally` on a GPU, equal to `Tally` to the last count. Ids beyond its experts, at which
    torch ends the process, load nothing."""

    def add_vanilla(
        self, layer: int, ids: torch.Tensor, num_real: int | torch.Tensor | None
    ) -> None:
        if self.num_experts > MAX_EXPERTS:
            super().add_vanilla(layer, ids, num_real)
        else:
            self._launch(layer, ids, num_real, vanilla=True)

    def add_loaded_ids(
        self, layer: int, ids: torch.Tensor, num_real: int | torch.Tensor | None
    ) -> None:
        if self.num_experts > MAX_EXPERTS:
            super().add_loaded_ids(layer, ids, num_real)
        else:
            self._launch(layer, ids, num_real, vanilla=False)

    def warm_up(self, k: int, num_real: torch.Tensor) -> None:
        """Compile what counts steps of k experts a token, on a tally like this one."""
        device = self.data.device
        other = DeviceTally([0], self.num_experts, self.ranks, device, self.placed)
        ids = torch.zeros(1, k, dtype=torch.int32, device=device)
        other.add_vanilla(0, ids, num_real)
        if self.placed:
            other.add_loaded_ids(0, ids, num_real)

    def _launch(
        self, layer: int, ids: torch.Tensor, num_real: int | torch.Tensor | None, *, vanilla: bool
    ) -> None:
        if ids.stride(1) != 1:
            ids = ids.contiguous()
        batch, k = ids.shape
        count_kernel[(1,)](
            ids,
            ids.stride(0),
            batch if num_real is None else num_real,
            batch,
            self.counted[self.row[layer]],
            self.counting,
            self.num_experts,
            K=k,
            COLUMNS=triton.next_power_of_2(self.num_experts),
            RANKS=self.ranks,
            BINS_OF_RANKS=triton.next_power_of_2(self.ranks),
            VANILLA=vanilla,
            REAL=kind_of(num_real),
            CHUNK=CHUNK,
            num_warps=4,
        )
        if vanilla and self.by_step and self.ends(layer):
            count(self)  # the layers before it may have been routed by us
