"""Router logits recorded from a model: a NumPy file, [steps, tokens, N].

A ``.npy`` file holds the array; an ``.npz`` file holds it as ``router_logits`` or as its only
array. Any float dtype; a step's tokens are those of one decode batch in one layer."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oea_server.lab.records.options import OptionError

if TYPE_CHECKING:
    import numpy as np
    import torch

ARRAY = "router_logits"


@dataclass(frozen=True, slots=True)
class Trace:
    """A recorded trace as a source of logits: random steps of it, and of each a random batch."""

    name: str
    """The file's name, without its folder."""
    array: np.ndarray[Any, Any]
    """[steps, tokens, N], mapped from disk where the format allows."""
    kind: str = "trace"

    def draw(
        self, steps: int, batch: int, num_experts: int, generator: torch.Generator
    ) -> torch.Tensor:
        """[steps, batch, num_experts] float32. Steps are drawn with replacement, a step's tokens
        without.

        Raises:
            OptionError: the trace has other experts, too few tokens, or logits that are not finite.
        """
        import torch

        self.check(batch, num_experts)
        recorded, tokens, _ = self.array.shape
        drawn = torch.empty(steps, batch, num_experts)
        for step in drawn:
            which = int(torch.randint(recorded, (), generator=generator))
            rows = torch.randperm(tokens, generator=generator)[:batch].numpy()
            step.copy_(torch.from_numpy(self.array[which][rows].astype("float32")))
        if not torch.isfinite(drawn).all():
            raise OptionError(f"--trace={self.name}: holds logits that are not finite")
        return drawn

    def check(self, batch: int, num_experts: int) -> None:
        """Raise OptionError where the trace cannot give batches of this size for this many
        experts."""
        _, tokens, experts = self.array.shape
        if experts != num_experts:
            raise OptionError(
                f"--trace={self.name}: logits of {experts} experts, the preset has {num_experts}"
            )
        if tokens < batch:
            raise OptionError(
                f"--trace={self.name}: {tokens} tokens per step, --batch asks for {batch}"
            )

    def facts(self) -> dict[str, Any]:
        """See `oea_server.lab.bench.logits.Source`."""
        steps, tokens, experts = self.array.shape
        return {
            "kind": self.kind,
            "what": f"recorded: {self.name}, {steps} steps of {tokens} tokens, {experts} experts",
        }


def read(path: Path) -> Trace:
    """Open a trace.

    Raises:
        OptionError: the file cannot be read, or holds no such array.
    """
    import numpy as np

    said = f"--trace={path}"
    if path.suffix not in (".npy", ".npz"):
        raise OptionError(f"{said}: is neither .npy nor .npz")
    if not path.is_file():
        raise OptionError(f"{said}: no such file")
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            names = loaded.files
            if ARRAY not in names and len(names) != 1:
                raise OptionError(
                    f"{said}: has no array {ARRAY!r} (has: {', '.join(names) or 'none'})"
                )
            loaded = loaded[ARRAY if ARRAY in names else names[0]]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(f"{said}: is not a NumPy file ({' '.join(str(error).split())})") from None
    if loaded.ndim != 3 or not np.issubdtype(loaded.dtype, np.floating) or 0 in loaded.shape:
        shape = "x".join(map(str, loaded.shape))
        raise OptionError(
            f"{said}: holds {loaded.dtype} {shape}, not floats [steps, tokens, experts]"
        )
    return Trace(path.name, loaded)
