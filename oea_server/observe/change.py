"""The body of `PUT /oea/config`: the live knobs with their bounds, any of them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from oea_server.routing.schedule import MAX_K0
from oea_server.settings import LIVE, Settings

SCHEDULE = (
    r"^(auto|\d{1,9}|\d{1,9}:\d{1,9}(,\d{1,9}:\d{1,9})*)"
    r"(; ?\d{1,4}(-\d{1,4})?=(\d{1,9}|\d{1,9}:\d{1,9}(,\d{1,9}:\d{1,9})*))*$"
)
"""What `Schedule.of` reads, strictly: a number, steps, and such for layers."""


def _field(name: str) -> tuple[Any, Any]:
    field = Settings.model_fields[name]
    annotation = field.annotation
    if name == "k0":
        text = Annotated[str, Field(pattern=SCHEDULE, max_length=4096)]
        annotation = text | Annotated[int, Field(ge=1, le=MAX_K0)]  # type: ignore[assignment]
    return annotation, field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"minProperties": 1})

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, body: Any) -> Any:
        """In JSON 8.0 is a whole number, as 8 is."""
        if not isinstance(body, dict):
            return body
        return {
            name: int(each) if isinstance(each, float) and each.is_integer() else each for name, each in body.items()
        }


FIELDS: dict[str, Any] = {name: _field(name) for name in LIVE}
Change = create_model("OeaConfigChange", __base__=_Strict, **FIELDS)
"""Any of the knobs; those that are left out stay as they are."""


def parse(body: bytes) -> dict[str, Any]:
    """The knobs that a request asks to change.

    Raises:
        ValueError: one line per problem: the knob, its value and the bounds.
    """
    try:
        asked = Change.model_validate_json(body).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise ValueError("; ".join(dict.fromkeys(_line(problem) for problem in error.errors()))) from None
    if not asked:
        raise ValueError(f"nothing to change; there are {', '.join(LIVE)}")
    if "k0" in asked:
        asked["k0"] = str(asked["k0"])
    return asked


def _line(problem: Any) -> str:
    said = f"{problem['msg'][0].lower()}{problem['msg'][1:]}"
    if not problem["loc"]:
        return f"the body is not a JSON object: {said}"
    name = str(problem["loc"][0])
    if name == "k0":
        said = f"neither a number of 1..{MAX_K0} nor a schedule such as auto, 1:8,2:6,16:3 or 1:8,16:3; 0-3=8"
    if problem["type"] == "extra_forbidden":
        return f"{name[:100]}: no such knob; there are {', '.join(LIVE)}"
    return f"{name}={str(problem['input'])[:100]}: {said}"
