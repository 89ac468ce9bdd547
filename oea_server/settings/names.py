"""Names of a knob: as a flag, a variable and a key of a live change; the refusal of other names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from oea_server.access import keys

ENV_PREFIX = "OEA_"
FLAG_PREFIX = "--oea-"
LIVE_PREFIX = "oea_"
OTHER_VARIABLES = ("OEA_URL", *keys.VARIABLES)
"""Where `oea-server config` finds a server, and where keys are; no knobs."""
SERVICE_LINK = re.compile(r"OEA_\w+_(SERVICE_(HOST|PORT\w*)|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")
"""Variables that Kubernetes writes for each Service, such as one that is named oea-server."""


class SettingsError(ValueError):
    """One clear line: the knob, its value, the bounds."""


def flag_of(name: str) -> str:
    """``k_max`` -> ``--oea-k-max``."""
    return FLAG_PREFIX + name.replace("_", "-")


def variable_of(name: str) -> str:
    """``k_max`` -> ``OEA_K_MAX``."""
    return ENV_PREFIX + name.upper()


def live_key_of(name: str) -> str:
    """``k_max`` -> ``oea_k_max``, as SGLang carries a change to its schedulers."""
    return LIVE_PREFIX + name


def known_otherwise(variable: str) -> bool:
    """Whether an OEA_* variable is somebody else's, and no knob."""
    return variable in OTHER_VARIABLES or SERVICE_LINK.fullmatch(variable) is not None


def no_such_knob(name: str, known: Sequence[str]) -> SettingsError:
    """The refusal of a name: the nearest one that is known, or all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
    return SettingsError(f"{name}: no such knob{hint}")
