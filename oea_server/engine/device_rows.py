"""What captured graphs read of the rows of a step: memory with one address for good, written before
a replay on the stream that replays."""

from __future__ import annotations

import torch

from oea_server.engine import drafts, limits
from oea_server.engine.drafts import Drafts
from oea_server.routing.records import MAX_ROWS


class DeviceRows:
    """A process's memory of it, on the device that it serves on."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.read = False
        """Whether graphs, and eager steps like them, read what stands here."""
        self.num_real: torch.Tensor | None = None
        """How many rows are tokens: a scalar, int32. None before a model was taken over."""
        self.mask: torch.Tensor | None = None
        """Which rows are tokens, where those of several ranks come together: [most rows] bool."""
        self.depths: torch.Tensor | None = None
        """What the drafts of a step are: [MAX_ROWS] int64. None until a step has some."""
        self.asked: torch.Tensor | None = None
        """What rows ask for themselves: [MAX_ROWS] int64, all zeros where none does."""
        self._asking = False

    @property
    def real(self) -> torch.Tensor | None:
        """What a graph reads of which rows are tokens: how many, or a mask of them."""
        return self.num_real if self.mask is None else self.mask

    def adopt(self, device: torch.device, num_real: torch.Tensor | None) -> None:
        """Serve on a device.

        Args:
            num_real: the count that SGLang keeps there itself, if it does.
        """
        self.device = device
        ours = num_real is None
        self.num_real = torch.zeros((), dtype=torch.int32, device=device) if ours else num_real

    def keep(self, masked: bool) -> None:
        """Have graphs read this.

        Args:
            masked: whether the rows of several ranks come together.
        """
        self.read = True
        self.asked = torch.zeros(MAX_ROWS, dtype=torch.int64, device=self.device)
        if masked:
            self.mask = torch.zeros(limits.most_rows(), dtype=torch.bool, device=self.device)

    def write_depths(self, of: Drafts) -> None:
        """Write how deep each row is in its request's drafts."""
        if self.depths is None:
            self.depths = torch.zeros(MAX_ROWS, dtype=torch.int64, device=self.device)
        self.depths.copy_(drafts.depths(MAX_ROWS, of, self.device))

    def write_asked(self, asked: torch.Tensor | None) -> None:
        """Write what the first rows ask for, [rows] int64 with rows at most MAX_ROWS; None where no
        row asks for anything."""
        if self.asked is None or (asked is None and not self._asking):
            return
        self.asked.zero_()
        if asked is not None:
            self.asked[: len(asked)].copy_(asked, non_blocking=True)
        self._asking = asked is not None
