"""One JSON schema of the knobs, which all that tell of them are made of.

Those are: the help of the flags, `GET /oea/config`, the body that `PUT /oea/config` takes, the
fields of the page, `oea-server config knobs` and `docs/knobs.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from oea_server.routing.schedule import BY_BATCH, Knob
from oea_server.settings.knobs import Knobs

Property = Mapping[str, Any]
"""One knob in the schema: type, bounds, choices (`enum`), default, title and description.

Besides what JSON Schema has: `live`, whether it changes while serving; `unset`, what it means where
it is not given; `choices`, what each of its choices does.
"""


class Named(BaseModel):
    """A model of knobs, whose titles are their names where they have none of their own."""

    model_config = ConfigDict(field_title_generator=lambda name, _: name)


def properties(knobs: type[Knobs]) -> dict[str, Property]:
    """All knobs, by name, as they may be given in JSON."""
    fields: dict[str, Any] = {name: form(name, knobs) for name in knobs.model_fields}
    found: dict[str, Property] = create_model(
        "Knobs", __base__=Named, **fields
    ).model_json_schema()["properties"]
    return found


def form(name: str, knobs: type[Knobs]) -> tuple[Any, FieldInfo]:
    """How a knob is given in JSON: annotation and field, as `pydantic.create_model` takes them."""
    field = knobs.model_fields[name]
    if (knob := BY_BATCH.get(name)) is None:
        return field.annotation, field
    text = Annotated[str, Field(pattern=_written(knob), max_length=4096)]
    number: Any = Annotated[knob.number, Field(**knob.limits)]  # type: ignore[name-defined]
    said: Any = Field(
        field.default, description=field.description, json_schema_extra=field.json_schema_extra
    )
    return text | number, said


def _written(knob: Knob) -> str:
    """What `Schedule.of` reads, strictly: a number, steps, and such for layers."""
    value = rf"({knob.pattern}|\d{{1,9}}:{knob.pattern}(,\d{{1,9}}:{knob.pattern})*)"
    return rf"^(auto|{value})(; ?\d{{1,4}}(-\d{{1,4}})?={value})*$"
