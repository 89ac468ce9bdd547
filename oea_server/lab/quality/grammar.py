"""The grammar of arms: one validated class a kind, without torch.

An arm is ``KIND:NUMBER/KNOB=VALUE/…``, such as ``oea:3/mix=0.5``. Every knob that a class has, its
rule uses."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from oea_server.routing.policy import Policy
from oea_server.routing.schedule import MAX_K0

MAX_EXPERTS = 1024
_WHOLE = re.compile(r"[-+]?[0-9]{1,9}")
_REAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")


class ArmError(ValueError):
    """One line: the arm, the knob, its value and the bounds."""


def _whole(text: object) -> object:
    if isinstance(text, str) and not _WHOLE.fullmatch(text):
        raise ValueError("is not a whole number")
    return text


def _real(text: object) -> object:
    if isinstance(text, str) and (not _REAL.fullmatch(text) or not math.isfinite(float(text))):
        raise ValueError("is not a finite number")
    return text


Whole = Annotated[int, BeforeValidator(_whole)]
Real = Annotated[float, BeforeValidator(_real)]


class Kind(BaseModel):
    """What an arm's text says; `NUMBER` is the field that stands behind the colon."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    NUMBER: ClassVar[str] = ""

    def policy(self) -> Policy | None:
        """The server's policy; None where the server has none."""
        return None

    def check(self, *, k: int, num_experts: int) -> None:
        """Check against a model of `num_experts` experts, `k` per token.

        Raises:
            ValueError: a knob asks for more than the model has.
        """
        ranks = getattr(self, "ranks", 1)
        if num_experts % ranks:
            raise ValueError(
                f"ranks={ranks}: the model's {num_experts} experts do not divide over them"
            )
        of_rank = num_experts // ranks
        for name, bound, what in (
            ("k0", k, "the model's top k"),
            ("floor", k, "the model's top k"),
            ("k_max", num_experts, "the model's experts"),
            ("max_rank", num_experts, "the model's experts"),
            ("experts", num_experts, "the model's experts"),
            ("rank_experts", of_rank, "the experts of a rank"),
        ):
            value = getattr(self, name, None)
            if value is not None and value > bound:
                raise ValueError(f"{name}={value} is above {bound}, {what}")

    def check_batch(self, batch: int) -> None:
        """Raise ValueError where a step of `batch` tokens does not suit."""


class Vanilla(Kind):
    """The model's own top k."""

    def policy(self) -> Policy:
        return Policy.vanilla()


class Pruned(Kind):
    """Each token's top k0 and nothing else."""

    NUMBER = "k0"
    k0: Whole = Field(ge=1, le=MAX_K0)

    def policy(self) -> Policy:
        return Policy.pruned(self.k0)


class Oea(Kind):
    """The server's OEA; with `weights` an experiment, which has neither p nor max_rank nor mix."""

    NUMBER = "k0"
    k0: Whole = Field(ge=1, le=MAX_K0)
    share: Real = Field(0.0, ge=0, lt=1)
    mix: Real | None = Field(None, ge=0, le=1)
    p: Real | None = Field(None, gt=0, le=1)
    k_max: Whole | None = Field(None, ge=1, le=MAX_EXPERTS)
    max_rank: Whole | None = Field(None, ge=1, le=MAX_EXPERTS)
    weights: Literal["scored"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Oea:
        for name in ("mix", "p", "max_rank"):
            if self.weights is not None and getattr(self, name) is not None:
                raise ValueError(f"{name} and weights exclude each other")
        for name in ("k_max", "max_rank"):
            value = getattr(self, name)
            if value is not None and value < self.k0:
                raise ValueError(
                    f"{name}={value} is below k0={self.k0}, which every token is guaranteed"
                )
        return self

    def policy(self) -> Policy | None:
        if self.weights is not None:
            return None
        p, mix = (1.0 if each is None else each for each in (self.p, self.mix))
        return Policy.oea(self.k0, p, self.k_max, self.max_rank, share=self.share, mix=mix)


class Share(Kind):
    """A floor by share of mass, written apart from the server's: oea:K0/share=TAU, where K0 is the
    model's top k."""

    NUMBER = "tau"
    tau: Real = Field(ge=0, le=1)
    mix: Real | None = Field(None, ge=0, le=1)
    k_max: Whole | None = Field(None, ge=1, le=MAX_EXPERTS)


class Vote(Kind):
    """The most wanted experts up to a number."""

    NUMBER = "experts"
    experts: Whole = Field(ge=1, le=MAX_EXPERTS)
    power: Real = Field(2.0, ge=0, le=16)
    floor: Whole = Field(1, ge=1, le=MAX_K0)


class Lynx(Kind):
    """The most wanted experts up to a number, by LYNX's score."""

    NUMBER = "experts"
    experts: Whole = Field(ge=1, le=MAX_EXPERTS)
    floor: Whole = Field(1, ge=1, le=MAX_K0)


SERVED_POWER = 4.0
"""`routing.widen.votes`."""


class Fill(Kind):
    """Each rank filled up to the busiest one's floors."""

    NUMBER = "k0"
    k0: Whole = Field(ge=1, le=MAX_K0)
    ranks: Whole = Field(8, ge=1, le=MAX_EXPERTS)
    share: Real = Field(0.0, ge=0, lt=1)
    mix: Real = Field(1.0, ge=0, le=1)
    power: Real = Field(SERVED_POWER, ge=0, le=16)

    def policy(self) -> Policy | None:
        if self.power != SERVED_POWER:
            return None
        return Policy.oea(self.k0, pool="fill", ranks=self.ranks, share=self.share, mix=self.mix)


class Budget(Kind):
    """At most so many experts on a rank, but for floors."""

    NUMBER = "rank_experts"
    rank_experts: Whole = Field(ge=1, le=MAX_EXPERTS)
    ranks: Whole = Field(8, ge=1, le=MAX_EXPERTS)
    power: Real = Field(SERVED_POWER, ge=0, le=16)
    floor: Whole = Field(1, ge=1, le=MAX_K0)

    def policy(self) -> Policy | None:
        if self.power != SERVED_POWER or self.floor != 1:
            return None
        return Policy.oea(1, pool="budget", ranks=self.ranks, rank_budget=self.rank_experts)


class Split(Kind):
    """Each rank's own tokens' floors, for these tokens only."""

    NUMBER = "k0"
    k0: Whole = Field(ge=1, le=MAX_K0)
    ranks: Whole = Field(8, ge=2, le=MAX_EXPERTS)

    def check(self, *, k: int, num_experts: int) -> None:
        if self.k0 > k:  # its ranks share tokens, not experts
            raise ValueError(f"k0={self.k0} is above {k}, the model's top k")

    def check_batch(self, batch: int) -> None:
        if batch % self.ranks:
            raise ValueError(
                f"ranks={self.ranks}: batches of {batch} tokens do not divide over them"
            )


KINDS: dict[str, type[Kind]] = {
    each.__name__.lower(): each
    for each in (Vanilla, Pruned, Oea, Share, Vote, Lynx, Fill, Budget, Split)
}


class Spelled(BaseModel):
    """An arm's canonical text, the kind's name, and what it says."""

    model_config = ConfigDict(frozen=True)
    label: str
    kind: str
    says: Kind


def read(text: str) -> Spelled:
    """Read one arm.

    Raises:
        ArmError: it is not known, or a knob is missing, given twice, out of bounds or excluded.
    """
    text = text.strip()
    head, *parts = text.split("/")
    kind, colon, number = head.partition(":")
    if not text:
        raise ArmError("an arm is missing: there is nothing between two ';'")
    if kind not in KINDS:
        raise ArmError(f"{text}: is none of {', '.join(KINDS)}")
    made = KINDS[kind]
    if not made.NUMBER and colon:
        raise ArmError(f"{text}: {kind} takes no number")
    if made.NUMBER and not number:
        raise ArmError(f"{text}: {kind} needs a number, its {made.NUMBER}")
    given = {made.NUMBER: number} if made.NUMBER else {}
    for part in parts:
        name, _, value = part.partition("=")
        if name in given:
            raise ArmError(f"{text}: {name} is given twice")
        if name not in made.model_fields:
            known = [each for each in made.model_fields if each != made.NUMBER]
            raise ArmError(
                f"{text}: {kind} has no {name or 'knob without a name'}; it has"
                f" {', '.join(known) or 'none'}"
            )
        if not value:
            raise ArmError(f"{text}: {name} has no value")
        given[name] = value
    try:
        says = made.model_validate(given)
    except ValidationError as error:
        raise ArmError(f"{text}: {_line(made, error.errors()[0])}") from None
    shown = {name: _shown(getattr(says, name)) for name in given}
    number = f":{shown.pop(made.NUMBER)}" if made.NUMBER else ""
    label = "/".join([f"{kind}{number}", *(f"{name}={value}" for name, value in shown.items())])
    return Spelled(label=label, kind=kind, says=says)


def read_all(text: str, batches: Sequence[int] = ()) -> list[Spelled]:
    """Read arms with ``;`` between them; vanilla is the first, named or not.

    Raises:
        ArmError: one is wrong, two say the same, or one does not suit a batch size.
    """
    found: list[Spelled] = []
    for each in (read(part) for part in text.split(";")):
        for other in found:
            if other.says == each.says:
                raise ArmError(
                    f"{each.label}: is given twice"
                    + ("" if other == each else f", also as {other.label}")
                )
        for batch in batches:
            try:
                each.says.check_batch(batch)
            except ValueError as error:
                raise ArmError(f"{each.label}: {error}") from None
        found.append(each)
    vanilla = read("vanilla")
    return [vanilla, *(each for each in found if each != vanilla)]


def _shown(value: Any) -> str:
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _line(made: type[Kind], problem: Any) -> str:
    if not problem["loc"]:
        return str(problem["ctx"]["error"])
    name = str(problem["loc"][0])
    given = f"{name}={problem['input']}"
    if problem["type"] == "value_error":
        return f"{given} {problem['ctx']['error']}"
    if problem["type"] == "literal_error":
        return f"{given} is none of {problem['ctx']['expected']}".replace("'", "")
    low, high = "", ""
    for bound in made.model_fields[name].metadata:
        low = (
            f"{bound.ge} <= "
            if isinstance(bound, Ge)
            else f"{bound.gt} < "
            if isinstance(bound, Gt)
            else low
        )
        high = (
            f" <= {bound.le}"
            if isinstance(bound, Le)
            else f" < {bound.lt}"
            if isinstance(bound, Lt)
            else high
        )
    return f"{given} is outside {low}{name}{high}"
