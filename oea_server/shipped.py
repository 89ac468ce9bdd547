"""The demo model, which comes in a wheel of its own, and text that it has never seen."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

PACKAGE = "oea_server_demo"
REMEDY = (
    "pip install 'oea-server[demo]', or from a checkout: pip install ./oea_server/lab/demo/models"
)


class NotInstalledError(ValueError):
    """The demo model is not installed; the text says how to."""


def model() -> Path:
    """The demo model's directory.

    Raises:
        NotInstalledError
    """
    return _path("MODEL")


def held_out() -> Path:
    """JSON lines of text that the demo model was not trained on.

    Raises:
        NotInstalledError
    """
    return _path("HELD_OUT")


def _path(name: str) -> Path:
    try:
        package = import_module(PACKAGE)
    except ModuleNotFoundError as error:
        if error.name != PACKAGE:
            raise
        raise NotInstalledError(f"the demo model is not installed: {REMEDY}") from error
    path: Path = getattr(package, name)
    return path
