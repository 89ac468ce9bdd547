"""The body of `PUT /oea/config`: the live knobs with their bounds, any of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jiter
from pydantic import BaseModel, ConfigDict, ValidationError, create_model, model_validator

from oea_server.oneline import oneline
from oea_server.routing.schedule import BY_BATCH
from oea_server.settings import LIVE, Knobs, Settings, live_names
from oea_server.settings.schema import Named, form


class _Strict(Named):
    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"minProperties": 1})

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, body: Any) -> Any:
        """In JSON 8.0 is a whole number, as 8 is."""
        if not isinstance(body, dict):
            return body
        return {
            name: int(each) if isinstance(each, float) and each.is_integer() else each
            for name, each in body.items()
        }


def change_of(knobs: type[Knobs]) -> type[BaseModel]:
    """A change of live knobs: any of them; those that are left out stay as they are."""
    fields: dict[str, Any] = {name: form(name, knobs) for name in live_names(knobs)}
    return create_model("OeaConfigChange", __base__=_Strict, **fields)


Change = change_of(Settings)
SCHEMA = Change.model_json_schema()
"""What the server tells of its live knobs: in `GET /oea/config`, in the OpenAPI description, and to
the page."""


MOST = 5
"""Problems that a refusal names."""

LONGEST = 500
"""Characters of all that it names; then it only counts. The first is always said whole."""

SHOWN = 60
"""Characters of a name or a value."""


def parse(body: bytes) -> dict[str, Any]:
    """The knobs that a request asks to change.

    Raises:
        ValueError: one line: the first problems, each with the knob, its value and the bounds, and
        how many more.
    """
    try:
        given = jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        raise ValueError(f"the body is not a JSON object: {oneline(str(error))}") from None
    if not isinstance(given, dict):
        raise ValueError("the body is not a JSON object")
    unknown = [name for name in given if name not in LIVE]
    found: list[str] = []
    asked: dict[str, Any] = {}
    try:
        asked = Change.model_validate(
            {name: given[name] for name in LIVE if name in given}
        ).model_dump(exclude_unset=True)
    except ValidationError as error:
        found = list(dict.fromkeys(_line(problem) for problem in error.errors(include_url=False)))
    if found or unknown:
        # no line is made for those that are only counted: there can be thousands
        raise ValueError(_first([*found, *_unknown(unknown[:MOST])], len(found) + len(unknown)))
    if not asked:
        raise ValueError(f"nothing to change; there are {', '.join(LIVE)}")
    return {name: str(value) if name in BY_BATCH else value for name, value in asked.items()}


def _first(lines: Sequence[str], problems: int) -> str:
    """As many lines as a refusal has place for, in one, and how many are left out."""
    said = list(lines[:1])
    for line in lines[1:MOST]:
        if len("; ".join([*said, line])) > LONGEST:
            break
        said.append(line)
    if problems > len(said):
        said.append(f"and {problems - len(said)} more")
    return "; ".join(said)


def _unknown(names: Sequence[str]) -> list[str]:
    lines = [f"{oneline(name, SHOWN)}: no such knob" for name in names]
    return [
        f"{line}; there are {', '.join(LIVE)}" if i == 0 else line for i, line in enumerate(lines)
    ]


def _line(problem: Any) -> str:
    said = f"{problem['msg'][0].lower()}{problem['msg'][1:]}"
    name = str(problem["loc"][0])
    if knob := BY_BATCH.get(name):
        layered = f"{knob.example}; 0-3={knob.example.split(',')[0].split(':')[1]}"
        said = (
            f"neither a number of {knob.bounds} nor a schedule such as auto, {knob.example} or"
            f" {layered}"
        )
    return f"{name}={oneline(str(problem['input']), SHOWN)}: {said}"
