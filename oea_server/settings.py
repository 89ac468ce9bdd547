"""Every knob once: name, type, bounds, default, help. Read from flags and from OEA_* alike.

Settings travel to SGLang's processes as OEA_* variables, because those are spawned.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from oea_server.access import keys
from oea_server.routing.calibrated import calibrated
from oea_server.routing.policy import Policy
from oea_server.routing.schedule import (
    MIX,
    SHARE,
    Knob,
    Schedule,
    default_schedule,
    number_or_schedule,
)
from oea_server.tiers import binding, table

ROUTES = (
    *("policy", "k0", "share", "mix", "p", "k_max", "max_rank", "min_batch"),
    *("pool", "rank_budget", "draft_k0", "seed"),
)
"""Knobs that can change while serving, and say how to route whoever asks for nothing."""
LIVE = (*ROUTES, "tiers", "default_tier")
"""All knobs that can change while serving."""

ENV_PREFIX = "OEA_"
FLAG_PREFIX = "--oea-"
LIVE_PREFIX = "oea_"
OTHER_VARIABLES = ("OEA_URL", *keys.VARIABLES)
"""Where `oea-server config` finds a server, and where keys are; no knobs."""
SERVICE_LINK = re.compile(r"OEA_\w+_(SERVICE_(HOST|PORT\w*)|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")
"""Variables that Kubernetes writes for every Service in a namespace, such as one named
oea-server."""


class SettingsError(ValueError):
    """One clear line: the knob, its value, the bounds."""


def _written(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


ByBatch = Annotated[str, BeforeValidator(_written)]
"""A number or a schedule (`oea_server.routing.schedule`) as it is written, or auto."""


class Settings(BaseSettings):
    """How to route. Bounds that need the model's size are checked once its config is read."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    policy: Literal["oea", "vanilla", "shadow", "pruned", "random"] = Field(
        "oea",
        description=(
            "how decode steps are routed: oea; vanilla (the model's own top k); shadow (serves"
            " vanilla and counts what oea would do); pruned (no fill) and random, for comparison"
        ),
    )
    k0: ByBatch = Field(
        "auto",
        description=(
            "experts guaranteed per token: a number, or a schedule from batch sizes on"
            " ('1:8,2:5,4:4,16:3', which is what auto means for top-8 models), and per layer"
            " ('1:8,16:3; 0-3=8')"
        ),
    )
    share: ByBatch = Field(
        "auto",
        description=(
            "guarantee only those of the k0 that hold more than this share of the mass of the"
            " token's own top k, the first always: a number, or a schedule as of k0"
            " ('1:0,16:0.13'); auto is 0, all of them"
        ),
    )
    mix: ByBatch = Field(
        "auto",
        description=(
            "what weights are divided by: the mass of the chosen experts (1, which is auto), that"
            " of the token's own top k (0), or a mixture: a number, or a schedule as of k0"
            " ('1:1,16:0.5')"
        ),
    )
    schedule: str | None = Field(
        None,
        description="a file of 'oea-server calibrate': what auto means for k0, share and mix",
    )
    p: float = Field(
        1.0, gt=0, le=1, description="guarantee only as many of the k0 as reach this router mass"
    )
    k_max: int | None = Field(
        None,
        ge=1,
        description="experts per token after the fill; the model's top k if not given",
        json_schema_extra={"unset": "top k"},
    )
    max_rank: int | None = Field(
        None,
        ge=1,
        description=(
            "how far down its own ranking a token looks for experts that are awake; all if not"
            " given"
        ),
        json_schema_extra={"unset": "all"},
    )
    min_batch: int = Field(2, ge=1, description="steps with fewer requests run vanilla")
    pool: Literal["fill", "union", "budget"] = Field(
        "fill",
        description=(
            "experts that a step reads: union (of what tokens are guaranteed); fill (with expert"
            " parallelism, each rank's most wanted experts besides, up to as many as the busiest"
            " rank reads anyway; else the same as union); budget (the most wanted up to rank_budget"
            " on each rank; k0 auto is 1 then)"
        ),
    )
    rank_budget: int | None = Field(
        None,
        ge=1,
        description="experts that a rank may read under pool budget, unless more are guaranteed",
        json_schema_extra={"unset": "none"},
    )
    draft_k0: int | None = Field(
        None,
        ge=1,
        description=(
            "with speculative decoding, experts guaranteed per draft, where k0 is more; as k0 if"
            " not given"
        ),
        json_schema_extra={"unset": "as k0"},
    )
    wish_floor: int | None = Field(
        None,
        ge=1,
        description=(
            "the least k0 that a request may wish for itself, which then holds whatever the"
            " server's k0 is; if not given, no less than the server's k0"
        ),
        json_schema_extra={"unset": "k0"},
    )
    tiers: str | None = Field(
        None,
        max_length=1000,
        description=(
            "names for what a request may ask for: 'gold: exact; silver: k0=5; bronze: auto'"
        ),
        json_schema_extra={"unset": "none"},
    )
    default_tier: str | None = Field(
        None,
        max_length=20,
        description="the tier of requests that name none and are bound to none",
        json_schema_extra={"unset": "none"},
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of the random policy")
    allow_inactive: bool = Field(
        False,
        description=(
            "serve a model none of whose routers can be handled, vanilla, instead of refusing"
        ),
    )
    per_layer_metrics: bool = Field(
        False,
        description="series for each MoE layer in /metrics as well; /oea/stats always has them",
    )
    latency_line: str | None = Field(
        None,
        description=(
            "a moe-*.json of 'oea-server bench moe' on this hardware: /oea/stats then predicts"
            " latency"
        ),
    )
    target_tpot: str | None = Field(
        None,
        description=(
            "seconds between two tokens of a request that a controller holds, by moving among"
            " rungs: 25ms, or p95:40ms for a percentile"
        ),
    )
    rungs: str | None = Field(
        None, description="a file of rungs: the settings that the controller may choose among"
    )
    quality_floor: str | None = Field(
        None,
        description=(
            "what the controller never goes below: a share of router mass kept (0.95), or a loss as"
            " calibrated (0.02nats)"
        ),
    )
    tier_header: str | None = Field(
        None,
        description=(
            "the header whose word a request's tier is (X-OEA-Tier): a gateway has to write it"
        ),
    )
    tier_keys: str | None = Field(
        None, description="a file that binds keys to tiers, 'gold: SHA-256 of the key' on each line"
    )
    admin_key_file: str | None = Field(
        None,
        description=(
            "a file with the key that changes what serves; OEA_ADMIN_KEY holds the key itself"
        ),
    )
    api_key_file: str | None = Field(
        None, description="a file with the key to be served; OEA_API_KEY holds the key itself"
    )

    @model_validator(mode="after")
    def _knobs_fit_together(self) -> Settings:
        self._oea(k=None)  # whatever the policy: it can be switched while serving
        tiers = table.parse(self.tiers)
        if self.default_tier is not None and self.default_tier not in tiers:
            raise ValueError(
                f"default_tier={self.default_tier}: no such tier; there are"
                f" {', '.join(tiers) or 'none'}"
            )
        if self.tier_header is not None and (problem := binding.header_problem(self.tier_header)):
            raise ValueError(problem)
        for name in ("tier_header", "tier_keys"):
            if (value := getattr(self, name)) is not None and not tiers:
                raise ValueError(
                    f"{name}={value}: without tiers nothing can be bound to one; give tiers"
                )
        return self

    def policy_for(self, k: int) -> Policy:
        """The policy that serves, for a model with top-k `k`."""
        match self.policy:
            case "vanilla" | "shadow":
                return Policy.vanilla()
            case "random":
                return Policy.random(self.seed)
            case "pruned":
                return Policy.pruned(self._schedule(k))
        return self._oea(k)

    def shadow_for(self, k: int) -> Policy | None:
        """The policy that is only counted beside the one that serves; None if there is none."""
        return self._oea(k) if self.policy == "shadow" else None

    def check(self, *, k: int, num_experts: int, renormalize: bool = True) -> None:
        """Check the knobs against a model with `num_experts` experts of which each token takes `k`.

        Args:
            renormalize: whether it divides weights by their sum, if that is known.

        Raises:
            ValueError: a knob asks for more than the model has, or for what has no effect there.
        """
        # whatever the policy: it can be switched while serving, and then must find knobs that fit
        self._oea(k).check(k=k, num_experts=num_experts, k_max_bound=k, renormalize=renormalize)
        if self.wish_floor is not None and self.wish_floor > k:
            raise ValueError(f"wish_floor={self.wish_floor} is above the model's top-k {k}")
        if problem := table.problem_of(table.parse(self.tiers), k, 0):
            raise ValueError(problem)

    def check_new(self, k: int, before: Settings | None = None) -> None:
        """Check tiers that are new, for a model with top-k `k`: a change of k0 may well lift the
        server above them.

        Args:
            before: the settings that held until now.

        Raises:
            ValueError: one of them promises less than every token is guaranteed.
        """
        if self.tiers is None or (before is not None and before.tiers == self.tiers):
            return
        least = self.policy_for(k).least
        least = least if self.wish_floor is None else min(least, self.wish_floor)
        if problem := table.problem_of(table.parse(self.tiers), k, least):
            raise ValueError(problem)

    def live(self) -> dict[str, Any]:
        """The knobs that can change while serving, by name."""
        return {name: getattr(self, name) for name in LIVE}

    def _schedule(self, k: int | None) -> Schedule[int]:
        if self.k0 != "auto":
            return Schedule.of(self.k0)
        if self.pool == "budget" and self.schedule is None:
            return Schedule.of(1)  # the budget is what follows the batch
        return (
            default_schedule(k or 1) if self.schedule is None else calibrated(self.schedule, k).k0
        )

    def _weighed(self, knob: Knob, auto: float, k: int | None) -> float | Schedule[float]:
        """`share` or `mix`: as asked for, or as calibrated, or what changes nothing."""
        asked: str = getattr(self, knob.name)
        if asked != "auto":
            return number_or_schedule(asked, knob)
        found = None if self.schedule is None else calibrated(self.schedule, k)
        value: float | Schedule[float] = getattr(found, knob.name, auto)
        return value

    def _oea(self, k: int | None) -> Policy:
        k0, share = self._schedule(k), self._weighed(SHARE, 0.0, k)
        if share and self.pool == "budget" and self.k0 == "auto" and self.schedule is None:
            raise ValueError(
                f"share={share} has no effect beside k0=auto, which is 1 under pool=budget: give"
                " a k0"
            )
        return Policy.oea(
            k0,
            self.p,
            self.k_max,
            self.max_rank,
            self.min_batch,
            pool=self.pool,
            rank_budget=self.rank_budget,
            share=share,
            mix=self._weighed(MIX, 1.0, k),
            draft_k0=self.draft_k0,
        )

    def environment(self) -> dict[str, str]:
        """The settings as OEA_* variables, defaults included."""
        values = self.model_dump(exclude_none=True)
        return {ENV_PREFIX + name.upper(): str(value) for name, value in values.items()}


POLICIES: tuple[str, ...] = get_args(Settings.model_fields["policy"].annotation)
"""Every value of `Settings.policy`."""


def read(given: Mapping[str, Any] | None = None) -> Settings:
    """Settings from flags (`given`, field names), else OEA_* variables, else defaults.

    Raises:
        SettingsError: with one line per problem.
    """
    _refuse_unknown_variables()
    try:
        return Settings(**(given or {}))
    except ValidationError as error:

        def source(name: str) -> str:
            return flag_of(name) if name in (given or {}) else ENV_PREFIX + name.upper()

        raise SettingsError(
            "; ".join(_line(problem, source) for problem in error.errors())
        ) from None


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Settings with some knobs changed while serving (field names).

    Raises:
        SettingsError: a knob that does not exist or cannot change, or a value out of bounds.
    """
    for name in changes:
        if name not in LIVE:
            raise SettingsError(_unknown(LIVE_PREFIX + name, [LIVE_PREFIX + knob for knob in LIVE]))
    try:
        return Settings(**{**settings.model_dump(), **changes})
    except ValidationError as error:
        raise SettingsError(
            "; ".join(_line(problem, lambda name: LIVE_PREFIX + name) for problem in error.errors())
        ) from None


def split_flags(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Take the --oea-* flags out of a command line; the rest is SGLang's, untouched and in order.

    Raises:
        SettingsError: an --oea-* flag that does not exist, or one without its value.
    """
    parser = argument_parser()
    try:
        given, rest = parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise SettingsError(str(error)) from None
    for argument in rest:
        if argument.startswith(FLAG_PREFIX):
            raise SettingsError(
                _unknown(argument.split("=")[0], [flag_of(name) for name in Settings.model_fields])
            )
    return vars(given), rest


def argument_parser() -> argparse.ArgumentParser:
    """The --oea-* flags, generated from the fields."""
    parser = argparse.ArgumentParser(
        prog="oea-server",
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
        argument_default=argparse.SUPPRESS,
    )
    group = parser.add_argument_group("routing")
    for name, field in Settings.model_fields.items():
        extra: dict[str, Any] = {"metavar": name.upper()}
        if field.annotation is bool:
            extra = {"nargs": "?", "const": "true", "metavar": "BOOL"}
        default = "" if field.default is None else f" (default: {field.default})"
        group.add_argument(
            flag_of(name),
            dest=name,
            help=f"{field.description}{default}".replace("%", "%%"),
            **extra,
        )
    return parser


def flag_of(name: str) -> str:
    """``k_max`` -> ``--oea-k-max``."""
    return FLAG_PREFIX + name.replace("_", "-")


def _line(problem: Any, source_of: Callable[[str], str]) -> str:
    if not problem["loc"]:
        return str(problem["ctx"]["error"]) if "ctx" in problem else str(problem["msg"])
    source = source_of(str(problem["loc"][0]))
    return f"{source}={problem['input']}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _refuse_unknown_variables() -> None:
    known = [ENV_PREFIX + name.upper() for name in Settings.model_fields]
    for name in os.environ:
        if name.startswith(ENV_PREFIX) and name.upper() not in known and not known_otherwise(name):
            raise SettingsError(_unknown(name, known))


def known_otherwise(name: str) -> bool:
    """Whether an OEA_* variable is somebody else's, and no knob."""
    return name in OTHER_VARIABLES or SERVICE_LINK.fullmatch(name) is not None


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
    return f"{name}: no such knob{hint}"
