"""A file of rungs: the settings among which the controller may choose, safest first, each judged
beforehand.

    {"form": 1, "model": "Qwen3-30B-A3B", "source": "oea-server calibrate …", "rungs": [
      {"name": "vanilla", "knobs": {"policy": "vanilla"}, "mass_kept": 1.0, "nats": 0.0, "experts":
      1.0}, {"name": "k0=5",    "knobs": {"k0": "5"}, "mass_kept": 0.97, "nats": 0.004, "experts":
      {"2": 0.95, "16": 0.63}}]}

`experts` is T as a share of vanilla's, one number or by batch size; `mass_kept` the share of the
router's own top-k mass; `nats` what the model loses per token. Further down all three only get
worse, or stay."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import log2
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from oea_server import settings
from oea_server.oneline import oneline
from oea_server.settings import ROUTES, Settings, SettingsError

Share = Annotated[float, Field(gt=0, le=1)]


def _by_batch(given: Any) -> Any:
    return {"1": given} if isinstance(given, int | float) and not isinstance(given, bool) else given


class Rung(BaseModel):
    """One setting, and what was measured of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=40, pattern=r"^[ -~]+$")
    knobs: dict[str, str | int | float | None] = Field(min_length=1)
    mass_kept: Share = Field(strict=True)
    nats: float | None = Field(None, strict=True)
    experts: Annotated[dict[Annotated[int, Field(ge=1)], Share], BeforeValidator(_by_batch)] = (
        Field(min_length=1)
    )

    @model_validator(mode="after")
    def _live(self) -> Rung:
        if strange := [name for name in self.knobs if name not in ROUTES]:
            raise ValueError(
                f"{oneline(strange[0], 40)}: no knob that can change while serving;"
                f" {', '.join(ROUTES)} can"
            )
        if self.knobs.get("policy", "oea") not in ("oea", "vanilla"):
            raise ValueError(f"policy={self.knobs['policy']}: a rung serves oea or vanilla")
        return self

    def share_at(self, batch: float) -> float:
        """T as a share of vanilla's at a batch size; between those that are given by the logarithm
        of the size."""
        sizes = sorted(self.experts)
        if batch <= sizes[0]:
            return self.experts[sizes[0]]
        for below, above in pairwise(sizes):
            if batch <= above:
                way = log2(batch / below) / log2(above / below)
                return self.experts[below] + way * (self.experts[above] - self.experts[below])
        return self.experts[sizes[-1]]


class Rungs(BaseModel):
    """All rungs of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    form: Literal[1]
    model: str = ""
    source: str = ""
    rungs: tuple[Rung, ...] = Field(min_length=2, max_length=16)

    @model_validator(mode="after")
    def _downwards(self) -> Rungs:
        for upper, lower in pairwise(self.rungs):
            if lower.mass_kept > upper.mass_kept:
                raise ValueError(
                    f"rung {lower.name} keeps more mass than {upper.name} before it: the safest"
                    " comes first"
                )
            if lower.nats is not None and upper.nats is not None and lower.nats < upper.nats:
                raise ValueError(
                    f"rung {lower.name} loses less than {upper.name} before it: the safest comes"
                    " first"
                )
            if any(
                lower.share_at(size) > upper.share_at(size)
                for size in {*lower.experts, *upper.experts}
            ):
                raise ValueError(
                    f"rung {lower.name} reads more experts than {upper.name} before it: put it"
                    " further up"
                )
        names = [rung.name for rung in self.rungs]
        if len(set(names)) < len(names):
            raise ValueError("two rungs have the same name: rename one")
        return self

    def knobs(self, index: int, flags: Mapping[str, Any]) -> dict[str, Any]:
        """All knobs under a rung: those that no rung names are as the flags say."""
        named = {name for rung in self.rungs for name in rung.knobs}
        return {**{name: flags[name] for name in named}, **self.rungs[index].knobs}


def read(path: str, flags: Settings) -> Rungs:
    """The file's rungs, each of which fits the other settings.

    Raises:
        ValueError: one line: the file is not there, is none, or a rung's knobs do not go together.
    """
    try:
        found = Rungs.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise ValueError(f"rungs={path}: {error.strerror}") from None
    except ValidationError as error:
        raise ValueError(f"rungs={path}: {_line(error)}") from None
    for index, rung in enumerate(found.rungs):
        try:
            settings.changed(flags, found.knobs(index, flags.live()))
        except SettingsError as error:
            raise ValueError(f"rungs={path}: rung {rung.name}: {error}") from None
    return found


def _line(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    said = oneline(first["msg"].removeprefix("Value error, "))
    return f"{place}: {said}" if place else said
