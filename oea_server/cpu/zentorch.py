"""Mixture-of-experts layers at the speed of memory: zentorch's fused kernel for x86-64 with
AVX-512.

Operator: `zentorch::zentorch_fused_moe`. It keeps a table, by address, of the weights that it has
re-ordered in place. Whoever else reads such weights, or writes into them, gets or makes nonsense;
so does whoever reuses their address before the table is cleared: weights outlive their layer here.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import time
import weakref
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from oea_server.cpu.loop import run_experts
from oea_server.routing.compiled import compiled

INSTRUCTIONS = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16")
DTYPES = (torch.bfloat16, torch.float32)
IN_PLACE = "5"
"""The variant of zentorch's grouped matmul that works in place. zentorch's own choice keeps a
second copy of the weights, takes seconds for prefill, and refuses a changed number of threads."""
ONE_COPY = "2"
"""Re-order in place: the default of zentorch 2.14, not of 2.11, which keeps a second copy
otherwise."""
CHECKED_EXPERTS, CHECKED_TOKENS = 8, 4
TOLERANCE = 0.02
WRITTEN = (
    "the weights of a layer changed after zentorch re-ordered them: restart the server to update"
    " weights, or uninstall zentorch"
)
SAMPLES = 8


@cache
def problem() -> str | None:
    """Why this machine cannot use it, None if it can. Loads the library and tries it."""
    return _unsuited() or _broken()


def _unsuited() -> str | None:
    if platform.machine() != "x86_64":
        return f"zentorch is made for x86_64, this is {platform.machine()}"
    if importlib.util.find_spec("zentorch") is None:
        return "zentorch is not installed"
    flags = Path("/proc/cpuinfo").read_text().split()
    if missing := [name for name in INSTRUCTIONS if name not in flags]:
        return f"zentorch needs a CPU with {', '.join(missing)}"
    ours, theirs = (
        ".".join(metadata.version(name).split(".")[:2]) for name in ("torch", "zentorch")
    )
    return (
        None
        if ours == theirs
        else f"this zentorch is made for torch {theirs}, this is torch {ours}"
    )


def _broken() -> str | None:
    os.environ.setdefault("ZENDNNL_GRP_MATMUL_ALGO", IN_PLACE)
    os.environ.setdefault("ZENDNNL_MATMUL_WEIGHT_CACHE", ONE_COPY)
    spec = importlib.util.find_spec("zentorch")
    assert spec is not None
    assert spec.origin is not None
    try:
        # the library alone: the package also changes torch.compile and the root logger
        torch.ops.load_library(str(Path(spec.origin).with_name("libzentorch.so")))
        generator = torch.Generator().manual_seed(0)
        w13, w2 = (
            torch.randn(4, *shape, generator=generator).bfloat16() / 16
            for shape in ((256, 256), (256, 128))
        )
        ZentorchExperts(w13, w2)
    except (OSError, RuntimeError) as error:
        return f"zentorch does not work here: {str(error).splitlines()[0]}"
    return None


LOOK_EVERY = 1.0
"""Seconds between two looks for writes into a layer's weights."""


class ZentorchExperts:
    """One layer. Owns the weights from now on: they are re-ordered in place.

    Args:
        w13: [N, 2I, H] gate and up projections, gate first; bfloat16 or float32.
        w2: [N, H, I] down projections, same dtype.

    Raises:
        RuntimeError: the kernel's result on these weights is not the loop's.
    """

    def __init__(self, w13: torch.Tensor, w2: torch.Tensor) -> None:
        # 2.11 has no such operator
        if not _alive and hasattr(torch.ops.zentorch, "zentorch_clear_weight_cache"):
            torch.ops.zentorch.zentorch_clear_weight_cache()
            _outlived.clear()
        _alive.add(self)
        weakref.finalize(self, _outlived.append, (w13, w2))
        self._w13, self._w2 = w13, w2
        count, hidden = w13.shape[0], w13.shape[2]
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(CHECKED_TOKENS, hidden, generator=generator).to(w13.dtype)
        ids = torch.randint(
            0, count, (CHECKED_TOKENS, CHECKED_EXPERTS), generator=generator, dtype=torch.int32
        )
        # the default is the model's here
        weights = torch.full(ids.shape, 1 / CHECKED_EXPERTS, dtype=torch.float32)
        expected = run_experts(x, w13, w2, weights, ids).float()
        everyone = torch.arange(count, dtype=torch.int32).view(1, -1)
        # re-orders all of them now, rather than each when it is first awake
        self._run(x[:1], torch.full(everyone.shape, 1 / count, dtype=torch.float32), everyone)
        self._samples = Samples(w13), Samples(w2)
        self._look_again = 0.0
        error = float((self(x, weights, ids).float() - expected).norm() / (expected.norm() + 1e-30))
        if not error < TOLERANCE:
            raise RuntimeError(f"zentorch is off by {error:.3f} on this layer")

    def __call__(self, x: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """See `oea_server.cpu.loop.run_experts`.

        Raises:
            RuntimeError: somebody wrote into the weights.
        """
        now = time.monotonic()
        if now >= self._look_again:
            if any(samples.seem_written() for samples in self._samples):
                raise RuntimeError(WRITTEN)
            self._look_again = now + LOOK_EVERY
        weights, ids = weights.float(), ids.int()
        if _fits(weights.numpy(), ids.numpy()):
            return self._run(x.contiguous(), weights.contiguous(), ids.contiguous())
        pairs = used_pairs(weights, ids, len(self._w13))
        out = torch.zeros(x.shape, dtype=torch.float32)
        if len(pairs.tokens):
            out.index_add_(
                0, pairs.tokens, self._run(x[pairs.tokens], pairs.weights, pairs.ids).float()
            )
        return out.to(x.dtype)

    def rewritten(self) -> bool:
        """Whether all weights were written anew since, in their own order; False if no weight was.

        Raises:
            RuntimeError: some were and some were not, so they are in two orders.
        """
        written = [expert for samples in self._samples for expert in samples.written()]
        if any(written) and not all(written):
            raise RuntimeError(WRITTEN)
        return any(written)

    def _run(self, x: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        torch.ops.zentorch.zentorch_fused_moe(
            out, x, self._w13, self._w2, None, None, weights, ids, False, "silu", None, None
        )
        return out


_alive: weakref.WeakSet[ZentorchExperts] = weakref.WeakSet()
_outlived: list[tuple[torch.Tensor, torch.Tensor]] = []
"""Weights of layers that are gone, while zentorch's table still names their addresses."""


class Pairs(NamedTuple):
    """The slots of a step that are used, one row each."""

    tokens: torch.Tensor
    """The token of each slot, [n] int64."""
    weights: torch.Tensor
    """[n, 1] float32."""
    ids: torch.Tensor
    """[n, 1] int32, two experts at least."""


def used_pairs(weights: torch.Tensor, ids: torch.Tensor, num_experts: int) -> Pairs:
    """Take the used slots out of a step that has others.

    Args:
        weights: [B, k] float32.
        ids: [B, k] int32; -1 is an expert of another rank, an id of weight 0 an unused slot.
    """
    given, chosen = weights.numpy(), ids.numpy()
    tokens, slots = np.nonzero((chosen >= 0) & (given != 0))
    experts, shares = chosen[tokens, slots], given[tokens, slots]
    if len(experts) and (experts == experts[0]).all():
        # zentorch computes nonsense for a step with a single expert: let it read another one
        tokens, shares = np.append(tokens, tokens[0]), np.append(shares, np.float32(0))
        experts = np.append(experts, np.int32((experts[0] + 1) % num_experts))
    return Pairs(*(torch.from_numpy(each) for each in (tokens, shares[:, None], experts[:, None])))


@compiled
def _fits(given: Any, chosen: Any) -> bool:
    """Whether all slots are used, by two experts at least: one call, where numpy would take ten."""
    several = False
    for row in range(len(chosen)):
        for slot in range(chosen.shape[1]):
            if chosen[row, slot] < 0 or given[row, slot] == 0:
                return False
            several |= chosen[row, slot] != chosen[0, 0]
    return several


class Samples:
    """A few numbers of each expert as zentorch left them, by which later writes into the weights
    are noticed.

    Args:
        weights: [N, rows, columns], contiguous.
    """

    def __init__(self, weights: torch.Tensor) -> None:
        self._experts = weights.view(torch.int16).view(len(weights), -1).numpy()
        self._places = np.linspace(0, self._experts.shape[1] - 1, SAMPLES).astype(np.int64)
        self._before = self._experts[:, self._places]  # a copy, [N, SAMPLES]
        self._quick = self._experts[:, self._places[1]]  # a view, [N]
        self._quick_before = self._quick.copy()

    def seem_written(self) -> bool:
        """Whether any expert was, by one number of each."""
        return not np.array_equal(self._quick, self._quick_before)

    def written(self) -> list[bool]:
        """[N], which experts were, by all numbers."""
        return [bool(changed.any()) for changed in self._experts[:, self._places] != self._before]
