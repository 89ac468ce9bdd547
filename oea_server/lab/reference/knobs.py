"""`docs/knobs.md`: the fields of `Settings`."""

from __future__ import annotations

from typing import get_args

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from oea_server.lab.reference.page import DOCS, entry
from oea_server.settings import ENV_PREFIX, LIVE, Settings, flag_of

PAGE = DOCS / "knobs.md"
SEE = {
    **dict.fromkeys(("share", "mix", "schedule"), "[what they cost and buy](quality.md)"),
    **dict.fromkeys(("pool", "rank_budget"), "[how, and what it buys](expert-parallel.md)"),
    "draft_k0": "[how, and what it costs](speculation.md#a-lower-floor-for-guesses)",
    "wish_floor": "[wishes](wishes.md)",
    **dict.fromkeys(("tiers", "default_tier", "tier_header", "tier_keys"), "[tiers](tiers.md)"),
    **dict.fromkeys(("target_tpot", "rungs", "quality_floor"), "[the controller](controller.md)"),
    **dict.fromkeys(("admin_key_file", "api_key_file"), "[keys](security.md)"),
}
"""Where more is said of a knob."""
SIGNS = ((Gt, "gt", "above"), (Ge, "ge", "from"), (Le, "le", "to"))


def entries() -> list[str]:
    """One for each knob, in their own order."""
    fields = Settings.model_fields.items()
    return [
        entry(f"`{flag_of(name)}`", facts(name, field), said(name, field)) for name, field in fields
    ]


def facts(name: str, field: FieldInfo) -> str:
    """Variable, default, bounds, and whether it can change while serving."""
    when = "changes while serving" if name in LIVE else "holds from the start"
    return (
        "; ".join(
            [f"`{ENV_PREFIX}{name.upper()}`", f"default {default(field)}", *bounds(field), when]
        )
        + "."
    )


def default(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "unset" in extra:
        return str(extra["unset"])
    return "none" if field.default is None else f"`{str(field.default).lower()}`"


def bounds(field: FieldInfo) -> list[str]:
    """What its value can be, where that is not any text."""
    choices = [value for value in get_args(field.annotation) if isinstance(value, str)]
    if choices:
        return ["one of " + ", ".join(f"`{choice}`" for choice in choices)]
    found = [
        f"{word} {getattr(bound, attribute)}"
        for kind, attribute, word in SIGNS
        for bound in field.metadata
        if isinstance(bound, kind)
    ]
    return [" ".join(found)] if found else []


def said(name: str, field: FieldInfo) -> str:
    """What the knob is for, and where more is said of it."""
    text = field.description or ""
    more = f" More: {SEE[name]}." if name in SEE else ""
    return f"{text[0].upper()}{text[1:]}.{more}"
