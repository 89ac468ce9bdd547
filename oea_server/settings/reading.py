"""Settings from what is given: flags, OEA_* variables, or a change while serving."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from oea_server.settings.knobs import live_names
from oea_server.settings.names import (
    ENV_PREFIX,
    SettingsError,
    flag_of,
    known_otherwise,
    live_key_of,
    no_such_knob,
    variable_of,
)
from oea_server.settings.policies import Settings


def read(given: Mapping[str, Any] | None = None) -> Settings:
    """Settings from flags (`given`, field names), else OEA_* variables, else defaults.

    Raises:
        SettingsError: with one line per problem.
    """
    _refuse_unknown_variables()
    try:
        return Settings(**(given or {}))
    except ValidationError as error:
        raise _refusal(
            error, lambda name: flag_of(name) if name in (given or {}) else variable_of(name)
        ) from None


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Settings with some knobs changed while serving (field names).

    Raises:
        SettingsError: a knob that does not exist or cannot change, or a value out of bounds.
    """
    live = live_names(type(settings))
    for name in changes:
        if name not in live:
            raise no_such_knob(live_key_of(name), [live_key_of(knob) for knob in live])
    try:
        return type(settings)(**{**settings.model_dump(), **changes})
    except ValidationError as error:
        raise _refusal(error, live_key_of) from None


def _refusal(error: ValidationError, source_of: Callable[[str], str]) -> SettingsError:
    return SettingsError("; ".join(_line(problem, source_of) for problem in error.errors()))


def _line(problem: Any, source_of: Callable[[str], str]) -> str:
    if not problem["loc"]:
        return str(problem["ctx"]["error"]) if "ctx" in problem else str(problem["msg"])
    source = source_of(str(problem["loc"][0]))
    return f"{source}={problem['input']}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _refuse_unknown_variables() -> None:
    known = [variable_of(name) for name in Settings.model_fields]
    for name in os.environ:
        ours = name.startswith(ENV_PREFIX) and not known_otherwise(name)
        if ours and name.upper() not in known:
            raise no_such_knob(name, known)
