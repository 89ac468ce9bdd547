"""What the JSON schema of a knob says, in words: its types, bounds and default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BOUNDS = {
    "exclusiveMinimum": "above",
    "minimum": "from",
    "maximum": "to",
    "exclusiveMaximum": "to below",
}


def kinds(knob: Mapping[str, Any]) -> set[str]:
    """The JSON types that a knob's value may have."""
    return {each["type"] for each in knob.get("anyOf", [knob])}


def default(knob: Mapping[str, Any]) -> str:
    """What holds where a knob is not given, in a word or two."""
    value = knob["default"]
    return str(knob.get("unset", "none")) if value is None else str(value).lower()


def bounds(knob: Mapping[str, Any]) -> list[str]:
    """Of a number, its bounds; of a text, its length if that is bound. Empty for any other."""
    for each in knob.get("anyOf", [knob]):
        if said := [f"{word} {each[name]}" for name, word in BOUNDS.items() if name in each]:
            return [" ".join(said)]
    longest = [each["maxLength"] for each in knob.get("anyOf", [knob]) if "maxLength" in each]
    return [f"at most {length} characters" for length in longest]
