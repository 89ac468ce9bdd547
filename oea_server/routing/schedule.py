"""k0 as a schedule: how many experts a token is guaranteed, by batch size and by layer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

MAX_K0 = 64
"""Largest k0 accepted; no published MoE model activates more experts per token."""

MAX_LAYERS = 1024
"""Layers that a schedule can name; no published model comes near."""

Steps = tuple[tuple[int, int], ...]
"""``((from_batch, k0), ...)``, ascending: k0 holds from that number of real tokens on."""

_STEP = re.compile(r"(\d+)\s*:\s*(\d+)")
_LAYERS = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")


@dataclass(frozen=True, slots=True)
class Schedule:
    """Guaranteed experts per token, by real tokens in the step and by MoE layer.

    Below a schedule's first batch size the step runs vanilla. `by_layer` replaces the default
    for single layers (SGLang's global layer ids).
    """

    default: Steps
    by_layer: Mapping[int, Steps] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for steps in (self.default, *self.by_layer.values()):
            _check(steps)

    def __hash__(self) -> int:
        return hash((self.default, tuple(sorted(self.by_layer.items()))))

    @classmethod
    def of(cls, k0: int | str | Mapping[int, int] | Schedule) -> Schedule:
        """Read a schedule from ``3``, ``{1: 8, 16: 3}``, ``"1:8,2:6,16:3"`` or, per layer,
        ``"1:8,16:3; 0-3=8; 47=1:8,2:5"`` (the default first, then layers or ranges of layers).

        Raises:
            ValueError: the text does not parse, or a number is out of bounds.
        """
        if isinstance(k0, Schedule):
            return k0
        if isinstance(k0, int):
            return cls(((1, k0),))
        if isinstance(k0, Mapping):
            return cls(tuple(sorted(k0.items())))
        default, *overrides = k0.split(";")
        by_layer: dict[int, Steps] = {}
        for override in overrides:
            layers, _, steps = override.partition("=")
            match = _LAYERS.fullmatch(layers.strip())
            if match is None or not steps:
                raise ValueError(f"k0={k0!r}: {override.strip()!r} is not LAYER=SCHEDULE or FIRST-LAST=SCHEDULE")
            first, last = int(match[1]), int(match[2] or match[1])
            if first > last:
                raise ValueError(f"k0={k0!r}: layers {first}-{last} run backwards")
            if last >= MAX_LAYERS:
                raise ValueError(f"k0={k0!r}: layer {last} is outside 0..{MAX_LAYERS - 1}")
            by_layer.update(dict.fromkeys(range(first, last + 1), _parse(steps, k0)))
        return cls(_parse(default, k0), by_layer)

    @property
    def largest(self) -> int:
        """The largest k0 anywhere in the schedule."""
        return max(k0 for steps in (self.default, *self.by_layer.values()) for _, k0 in steps)

    def k0(self, batch: int, layer: int) -> int | None:
        """k0 for `batch` real tokens in `layer`; None where no step of the schedule holds yet."""
        held = [k0 for start, k0 in self.by_layer.get(layer, self.default) if start <= batch]
        return held[-1] if held else None

    def __str__(self) -> str:
        parts = [_format(self.default)]
        parts += [f"{layer}={_format(steps)}" for layer, steps in sorted(self.by_layer.items())]
        return "; ".join(parts)


def default_schedule(k: int) -> Schedule:
    """The shipped schedule for a model with top-k `k`: for k=8, ``1:8,2:5,4:4,16:3``.

    What `oea-server calibrate --budget 1%` makes of the demo model's evaluation: at each batch size the smallest k0
    that costs at most 1 % of vanilla's cross-entropy; but none below 3 of 8, the smallest that the paper measured
    (arXiv 2511.02237). Ends at vanilla for a lone token, where OEA would be plain pruning.
    """
    shares = {1: 8, 2: 5, 4: 4, 16: 3}
    return Schedule(tuple((batch, -(-k * eighths // 8)) for batch, eighths in shares.items()))


def calibrated(path: str, k: int | None) -> Schedule:
    """The schedule in a file of `oea-server calibrate`; read once: the same as long as a process lives.

    Args:
        k: the experts per token of the model that it is for; None if that is not known yet.

    Raises:
        ValueError: the file is not there, is none, or is for a model with another top k.
    """
    found, top = _content(path)
    if k is not None and k != top:
        raise ValueError(f"schedule={path}: it is for a model of top-{top}, and this one's is {k}")
    return found


@lru_cache(maxsize=16)
def _content(path: str) -> tuple[Schedule, int]:
    """The schedule in a file, and the top k of the models that it is for."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return Schedule.of(str(content["k0"])), int(content["k"])
    except OSError as error:
        raise ValueError(f"schedule={path}: {error.strerror}") from None
    except (KeyError, TypeError, OverflowError, RecursionError, UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError(f"schedule={path}: not a file of 'oea-server calibrate'") from None
    except ValueError as error:
        raise ValueError(f"schedule={path}: {error}") from None


def _parse(text: str, whole: str) -> Steps:
    text = text.strip()
    if text.isdecimal():
        return ((1, int(text)),)
    steps = []
    for part in text.split(","):
        match = _STEP.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"k0={whole!r}: {part.strip()!r} is not BATCH:K0, as in '1:8,2:6,16:3'")
        steps.append((int(match[1]), int(match[2])))
    return tuple(steps)


def _check(steps: Steps) -> None:
    shown = _format(steps)
    if not steps:
        raise ValueError("k0: the schedule is empty")
    for batch, k0 in steps:
        if not 1 <= k0 <= MAX_K0:
            raise ValueError(f"k0={shown}: k0 {k0} is outside 1..{MAX_K0}")
        if batch < 1:
            raise ValueError(f"k0={shown}: batch size {batch} is below 1")
    batches = [batch for batch, _ in steps]
    if batches != sorted(set(batches)):
        raise ValueError(f"k0={shown}: batch sizes must rise")


def _format(steps: Steps) -> str:
    if len(steps) == 1 and steps[0][0] == 1:
        return str(steps[0][1])
    return ",".join(f"{batch}:{k0}" for batch, k0 in steps)
