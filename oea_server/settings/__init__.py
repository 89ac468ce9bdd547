"""The knobs: what they are, how they are given, and what is told of them.

`knobs` declares each of them once. `policies` says what they ask for. `schema` describes them to
whoever shows or takes them. `flags` and `reading` make settings of what is given, by the `names`.
"""

from oea_server.settings.flags import argument_parser, split_flags
from oea_server.settings.knobs import LIVE, POLICIES, ROUTES, Knobs, live_names
from oea_server.settings.names import (
    LIVE_PREFIX,
    OTHER_VARIABLES,
    SettingsError,
    flag_of,
    variable_of,
)
from oea_server.settings.policies import Settings
from oea_server.settings.reading import changed, read

__all__ = [
    "LIVE",
    "LIVE_PREFIX",
    "OTHER_VARIABLES",
    "POLICIES",
    "ROUTES",
    "Knobs",
    "Settings",
    "SettingsError",
    "argument_parser",
    "changed",
    "flag_of",
    "live_names",
    "read",
    "split_flags",
    "variable_of",
]
