"""The --oea-* flags of `oea-server serve` and `doctor`, made of the knobs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from oea_server.schema_words import bounds, default, kinds
from oea_server.settings.knobs import Knobs
from oea_server.settings.names import FLAG_PREFIX, SettingsError, flag_of, no_such_knob
from oea_server.settings.policies import Settings
from oea_server.settings.schema import Property, properties


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
            known = [flag_of(name) for name in Settings.model_fields]
            raise no_such_knob(argument.split("=")[0], known)
    return vars(given), rest


def argument_parser(knobs: type[Knobs] = Settings) -> argparse.ArgumentParser:
    """A parser of the --oea-* flags."""
    parser = argparse.ArgumentParser(
        prog="oea-server",
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
        argument_default=argparse.SUPPRESS,
    )
    group = parser.add_argument_group("routing")
    for name, knob in properties(knobs).items():
        extra: dict[str, Any] = {"metavar": name.upper()}
        if "boolean" in kinds(knob):
            extra = {"nargs": "?", "const": "true", "metavar": "BOOL"}
        group.add_argument(flag_of(name), dest=name, help=_help(knob), **extra)
    return parser


def _help(knob: Property) -> str:
    said = [*bounds(knob), *([] if knob["default"] is None else [f"default: {default(knob)}"])]
    text = f"{knob['description']} ({'; '.join(said)})" if said else knob["description"]
    return str(text).replace("%", "%%")
