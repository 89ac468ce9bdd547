"""The knobs' fields on the page, from the same words and bounds as the flags: what a field holds
and what it says."""

from __future__ import annotations

import json
from typing import Any, Literal, get_args, get_origin

from oea_server.routing.schedule import BY_BATCH
from oea_server.settings import LIVE, Settings


def fields() -> list[dict[str, Any]]:
    """One for each live knob: name, help; options to choose from, or `text` if it is sent as it is
    typed; `empty`, what an empty one means, where it may be empty."""
    return [_field(name) for name in LIVE]


def _field(name: str) -> dict[str, Any]:
    field = Settings.model_fields[name]
    said = field.description or ""
    found: dict[str, Any] = {"name": name, "help": f"{said[:1].upper()}{said[1:]}."}
    if get_origin(field.annotation) is Literal:
        found["options"] = get_args(field.annotation)
    if name in BY_BATCH:
        found["text"] = True
    if isinstance(extra := field.json_schema_extra, dict):
        found["empty"] = extra["unset"]
    return found


def embedded() -> str:
    """The fields as JSON that may stand inside a document."""
    return json.dumps(fields()).replace("<", "\\u003c")
