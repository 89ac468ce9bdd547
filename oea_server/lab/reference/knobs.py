"""`docs/knobs.md`: the schema of the knobs."""

from __future__ import annotations

from oea_server.lab.reference.page import DOCS, entry
from oea_server.schema_words import bounds, default
from oea_server.settings import Knobs, Settings, flag_of, variable_of
from oea_server.settings.schema import Property, properties

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


def entries(knobs: type[Knobs] = Settings) -> list[str]:
    """An entry for each knob, in the settings' order."""
    return [
        entry(f"`{flag_of(name)}`", facts(name, knob), said(name, knob))
        for name, knob in properties(knobs).items()
    ]


def facts(name: str, knob: Property) -> str:
    """Variable, default, bounds, and whether it can change while serving."""
    when = "changes while serving" if knob.get("live") else "holds from the start"
    found = [f"`{variable_of(name)}`", f"default {typed(knob)}", *limits(knob), when]
    return "; ".join(found) + "."


def typed(knob: Property) -> str:
    """The default, as it would be typed; where there is none to type, what it means."""
    return default(knob) if knob["default"] is None else f"`{default(knob)}`"


def limits(knob: Property) -> list[str]:
    """What its value can be, where that is not any text."""
    choices = ", ".join(f"`{choice}`" for choice in knob.get("enum", ()))
    return [f"one of {choices}"] if choices else bounds(knob)


def said(name: str, knob: Property) -> str:
    """What the knob is for, and where more is said of it."""
    text = knob["description"]
    more = f" More: {SEE[name]}." if name in SEE else ""
    return f"{text[0].upper()}{text[1:]}.{more}"
