"""A knob as a schedule: what it is by batch size and by layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar, overload

MAX_K0 = 64
"""Largest k0 accepted; no published MoE model activates more experts per token."""

MAX_LAYERS = 1024
"""Layers that a schedule can name; no published model comes near."""

T = TypeVar("T", bound=float)
Steps = tuple[tuple[int, T], ...]
"""``((from_batch, value), ...)``, ascending: a value holds from that number of real tokens on."""

_LAYERS = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")


class Knob(NamedTuple):
    """A knob that can follow the batch.

    Args:
        number: of what type its values are.
        limits: of a value, as pydantic names them: ge, and le or lt.
        example: a schedule of it.
    """

    name: str
    number: type[int] | type[float]
    limits: Mapping[str, Any]
    example: str

    @property
    def pattern(self) -> str:
        """How a value is written."""
        return (
            r"\d{1,9}"
            if self.number is int
            else r"[-+]?(?:\d{1,9}\.?\d{0,17}|\.\d{1,17})(?:[eE][-+]?\d{1,3})?"
        )

    @property
    def bounds(self) -> str:
        """Bounds of a value, in words."""
        low, high = self.limits["ge"], self.limits.get("le", self.limits.get("lt"))
        if self.number is int:
            return f"{low}..{high}"
        return f"{low:g} <= {self.name} {'<=' if 'le' in self.limits else '<'} {high:g}"

    def holds(self, value: float) -> bool:
        """Whether a value is within the bounds."""
        low, high = self.limits["ge"], self.limits.get("le", self.limits.get("lt", 0))
        return low <= value <= high and not ("lt" in self.limits and value == high)


K0 = Knob("k0", int, {"ge": 1, "le": MAX_K0}, "1:8,2:6,16:3")
SHARE = Knob("share", float, {"ge": 0, "lt": 1}, "1:0,16:0.13")
MIX = Knob("mix", float, {"ge": 0, "le": 1}, "1:1,16:0.5")
BY_BATCH = {knob.name: knob for knob in (K0, SHARE, MIX)}
"""The knobs that can follow the batch, by name."""


@dataclass(frozen=True, slots=True)
class Schedule(Generic[T]):
    """A knob by real tokens in the step and by MoE layer; of k0, guaranteed experts per token.

    Below its first batch size a schedule says nothing: of k0, the step runs vanilla there.
    `by_layer` replaces the default for single layers (SGLang's global layer ids)."""

    default: Steps[T]
    by_layer: Mapping[int, Steps[T]] = field(default_factory=dict)
    knob: Knob = K0

    def __post_init__(self) -> None:
        for steps in (self.default, *self.by_layer.values()):
            _check(steps, self.knob)

    def __hash__(self) -> int:
        return hash((self.default, tuple(sorted(self.by_layer.items())), self.knob.name))

    @overload
    @classmethod
    def of(cls, value: int | str | Mapping[int, int] | Schedule[int]) -> Schedule[int]: ...

    @overload
    @classmethod
    def of(
        cls, value: float | str | Mapping[int, float] | Schedule[float], knob: Knob
    ) -> Schedule[float]: ...

    @classmethod
    def of(cls, value: Any, knob: Knob = K0) -> Schedule[Any]:
        """Read a schedule from ``3``, ``{1: 8, 16: 3}``, ``"1:8,2:6,16:3"`` or, per layer,
        ``"1:8,16:3; 0-3=8; 47=1:8,2:5"`` (the default first, then layers or ranges of layers).

        Raises:
            ValueError: the text does not parse, or a number is out of bounds.
        """
        if isinstance(value, Schedule):
            return value
        if isinstance(value, int | float):
            alone: Steps[Any] = ((1, value),)
            return cls(alone, knob=knob)
        if isinstance(value, Mapping):
            return cls(tuple(sorted(value.items())), knob=knob)
        default, *overrides = value.split(";")
        by_layer: dict[int, Steps[Any]] = {}
        for override in overrides:
            layers, _, steps = override.partition("=")
            match = _LAYERS.fullmatch(layers.strip())
            if match is None or not steps:
                why = f"{override.strip()!r} is not LAYER=SCHEDULE or FIRST-LAST=SCHEDULE"
                raise ValueError(f"{knob.name}={value!r}: {why}")
            first, last = int(match[1]), int(match[2] or match[1])
            if first > last:
                raise ValueError(
                    f"{knob.name}={value!r}: layers {first}-{last} run backwards; write"
                    f" {last}-{first}"
                )
            if last >= MAX_LAYERS:
                raise ValueError(
                    f"{knob.name}={value!r}: layer {last} is outside 0..{MAX_LAYERS - 1}"
                )
            by_layer.update(dict.fromkeys(range(first, last + 1), _parse(steps, value, knob)))
        return cls(_parse(default, value, knob), by_layer, knob)

    @property
    def values(self) -> tuple[T, ...]:
        """All values anywhere in the schedule."""
        every: list[Steps[T]] = [self.default, *self.by_layer.values()]
        return tuple(value for steps in every for _, value in steps)

    def at(self, batch: int, layer: int) -> T | None:
        """The value for `batch` real tokens in `layer`; None where no step of the schedule holds
        yet."""
        held = [value for start, value in self.by_layer.get(layer, self.default) if start <= batch]
        return held[-1] if held else None

    def __str__(self) -> str:
        parts = [_format(self.default)]
        parts += [f"{layer}={_format(steps)}" for layer, steps in sorted(self.by_layer.items())]
        return "; ".join(parts)


def number_or_schedule(
    value: float | str | Mapping[int, float] | Schedule[float], knob: Knob
) -> float | Schedule[float]:
    """A number where a knob is the same at every batch size and in every layer, else its schedule.

    Raises:
        ValueError: see `Schedule.of`.
    """
    if isinstance(value, str) and re.fullmatch(knob.pattern, value.strip()):
        value = knob.number(value)
    if isinstance(value, int | float):
        check(value, knob)
        return value
    found = Schedule.of(value, knob)
    return (
        found.default[0][1]
        if not found.by_layer and [start for start, _ in found.default] == [1]
        else found
    )


def check(value: float, knob: Knob) -> None:
    """Raise ValueError where one number of a knob is out of bounds."""
    if not knob.holds(value):
        raise ValueError(f"{knob.name}={value} is outside {knob.bounds}")


def default_schedule(k: int) -> Schedule[int]:
    """The shipped schedule for a model with top-k `k`: for k=8, ``1:8,2:5,4:4,16:3``.

    What `oea-server calibrate --budget 1%` makes of the demo model's evaluation: at each batch size
    the smallest k0 that costs at most 1 % of vanilla's cross-entropy; but none below 3 of 8, the
    smallest that the paper measured (arXiv 2511.02237). Ends at vanilla for a lone token, where OEA
    would be plain pruning."""
    shares = {1: 8, 2: 5, 4: 4, 16: 3}
    return Schedule(tuple((batch, -(-k * eighths // 8)) for batch, eighths in shares.items()))


def _parse(text: str, whole: str, knob: Knob) -> Steps[Any]:
    text = text.strip()
    if re.fullmatch(knob.pattern, text):
        return ((1, knob.number(text)),)
    steps = []
    for part in text.split(","):
        match = re.fullmatch(rf"(\d+)\s*:\s*({knob.pattern})", part.strip())
        if match is None:
            why = f"{part.strip()!r} is not BATCH:{knob.name.upper()}, as in {knob.example!r}"
            raise ValueError(f"{knob.name}={whole!r}: {why}")
        steps.append((int(match[1]), knob.number(match[2])))
    return tuple(steps)


def _check(steps: Steps[Any], knob: Knob) -> None:
    shown = _format(steps)
    if not steps:
        raise ValueError(f"{knob.name}: the schedule is empty; write {knob.example!r}")
    for batch, value in steps:
        if not knob.holds(value):
            raise ValueError(f"{knob.name}={shown}: {knob.name} {value} is outside {knob.bounds}")
        if batch < 1:
            raise ValueError(f"{knob.name}={shown}: batch size {batch} is below 1")
    batches = [batch for batch, _ in steps]
    if batches != sorted(set(batches)):
        raise ValueError(f"{knob.name}={shown}: batch sizes must rise")


def _format(steps: Steps[Any]) -> str:
    if len(steps) == 1 and steps[0][0] == 1:
        return str(steps[0][1])
    return ",".join(f"{batch}:{value}" for batch, value in steps)
