"""Every knob once: its name, type, bounds, default, help, and whether it changes while serving."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from oea_server.settings.names import ENV_PREFIX


def _written(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


ByBatch = Annotated[str, BeforeValidator(_written)]
"""A number or a schedule (`oea_server.routing.schedule`) as it is written, or auto."""

LIVE_MARK: dict[str, Any] = {"live": True}
"""On a knob that can change while serving."""

POLICY_WORDS = {
    "oea": "batch-aware routing decides",
    "vanilla": "the model's own top k",
    "shadow": "serves vanilla, predicts OEA",
    "pruned": "k0 experts and no fill, for comparison",
    "random": "a random choice, for comparison",
}
"""What each policy does."""


class Knobs(BaseSettings):
    """How to route, as it is asked for."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    policy: Literal["oea", "vanilla", "shadow", "pruned", "random"] = Field(
        "oea",
        title="Policy",
        description="how decode steps are routed. "
        + ". ".join(f"{name}: {words}" for name, words in POLICY_WORDS.items()),
        json_schema_extra=LIVE_MARK | {"choices": POLICY_WORDS},
    )
    k0: ByBatch = Field(
        "auto",
        description="experts guaranteed per token: a number, or a schedule from batch sizes on, "
        "and per layer ('1:8,16:3; 0-3=8'). For top-8 models auto is '1:8,2:5,4:4,16:3'",
        json_schema_extra=LIVE_MARK,
    )
    share: ByBatch = Field(
        "auto",
        description="guarantee only those of the k0 that hold more than this share of the mass of "
        "the token's own top k, the first always. A number, or a schedule as of k0 "
        "('1:0,16:0.13'); auto is 0, all of them",
        json_schema_extra=LIVE_MARK,
    )
    mix: ByBatch = Field(
        "auto",
        description="what weights are divided by: the chosen experts' mass (1, which is "
        "auto), that of the token's own top k (0), or a mixture. A number, or a schedule as of k0 "
        "('1:1,16:0.5')",
        json_schema_extra=LIVE_MARK,
    )
    schedule: str | None = Field(
        None,
        description="a file of 'oea-server calibrate': what auto means for k0, share and mix",
    )
    p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="guarantee only as many of the k0 as reach this router mass",
        json_schema_extra=LIVE_MARK,
    )
    k_max: int | None = Field(
        None,
        ge=1,
        description="experts per token after the fill; the model's top k if not given",
        json_schema_extra=LIVE_MARK | {"unset": "top k"},
    )
    max_rank: int | None = Field(
        None,
        ge=1,
        description="how far down its own ranking a token looks for experts that are awake; all "
        "if not given",
        json_schema_extra=LIVE_MARK | {"unset": "all"},
    )
    min_batch: int = Field(
        2,
        ge=1,
        description="steps with fewer requests run vanilla",
        json_schema_extra=LIVE_MARK,
    )
    pool: Literal["fill", "union", "budget"] = Field(
        "fill",
        description="experts that a step reads. union: what tokens are guaranteed. fill: with "
        "expert parallelism also each rank's most wanted experts, up to as many as the busiest "
        "rank reads anyway; else the same as union. budget: the most wanted up to rank_budget on "
        "each rank; k0 auto is 1 then",
        json_schema_extra=LIVE_MARK,
    )
    rank_budget: int | None = Field(
        None,
        ge=1,
        description="experts that a rank may read under pool budget, unless more are guaranteed",
        json_schema_extra=LIVE_MARK | {"unset": "none"},
    )
    draft_k0: int | None = Field(
        None,
        ge=1,
        description="with speculative decoding, experts guaranteed per draft, where k0 is more; "
        "as k0 if not given",
        json_schema_extra=LIVE_MARK | {"unset": "as k0"},
    )
    seed: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="seed of the random policy",
        json_schema_extra=LIVE_MARK,
    )
    tiers: str | None = Field(
        None,
        max_length=1000,
        description="names for what a request may ask for: 'gold: exact; silver: k0=5; bronze: "
        "auto'",
        json_schema_extra=LIVE_MARK | {"unset": "none"},
    )
    default_tier: str | None = Field(
        None,
        max_length=20,
        description="the tier of requests that name none and are bound to none",
        json_schema_extra=LIVE_MARK | {"unset": "none"},
    )
    wish_floor: int | None = Field(
        None,
        ge=1,
        description="the least k0 that a request may wish for itself, whatever the server's k0 is. "
        "If not given, no less than the server's k0",
        json_schema_extra={"unset": "k0"},
    )
    allow_inactive: bool = Field(
        False,
        description="serve a model none of whose routers can be handled, vanilla, instead of "
        "refusing",
    )
    per_layer_metrics: bool = Field(
        False,
        description="series for each MoE layer in /metrics as well; /oea/stats always has them",
    )
    latency_line: str | None = Field(
        None,
        description="a moe-*.json of 'oea-server bench moe' on this hardware: /oea/stats then "
        "predicts latency",
    )
    target_tpot: str | None = Field(
        None,
        description="seconds between two tokens of a request that a controller holds, by moving "
        "among rungs: 25ms, or p95:40ms for a percentile",
    )
    rungs: str | None = Field(
        None,
        description="a file of rungs: the settings that the controller may choose among",
    )
    quality_floor: str | None = Field(
        None,
        description="what the controller never goes below: a share of router mass kept (0.95), or "
        "a loss as calibrated (0.02nats)",
    )
    tier_header: str | None = Field(
        None,
        description="the header whose word a request's tier is (X-OEA-Tier): a gateway has to "
        "write it",
    )
    tier_keys: str | None = Field(
        None,
        description="a file that binds keys to tiers, 'gold: SHA-256 of the key' on each line",
    )
    admin_key_file: str | None = Field(
        None,
        description="a file with the key that changes what serves; OEA_ADMIN_KEY holds the key "
        "itself",
    )
    api_key_file: str | None = Field(
        None,
        description="a file with the key to be served; OEA_API_KEY holds the key itself",
    )


POLICIES: tuple[str, ...] = get_args(Knobs.model_fields["policy"].annotation)
"""Every value of `Knobs.policy`."""


def live_names(knobs: type[BaseSettings]) -> tuple[str, ...]:
    """Names of the knobs that can change while serving, in the order of their fields."""
    marked = ((name, field.json_schema_extra) for name, field in knobs.model_fields.items())
    return tuple(name for name, extra in marked if isinstance(extra, dict) and extra.get("live"))


LIVE = live_names(Knobs)
"""All knobs that can change while serving."""
ROUTES = tuple(name for name in LIVE if name not in ("tiers", "default_tier"))
"""Knobs that can change while serving, and say how to route whoever asks for nothing."""
