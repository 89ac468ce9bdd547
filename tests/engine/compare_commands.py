"""`serve` up to where SGLang would spawn, and `doctor`, in this process: for many models after
another."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Sequence
from unittest import mock

from oea_server import doctor, serve
from oea_server.engine import runtime
from oea_server.engine.refuse import PREFIX
from oea_server.settings import SettingsError, read, split_flags


class SpawnedError(Exception):
    """SGLang would start its processes now."""


def served(argv: Sequence[str], plain: bool = False) -> list[str]:
    """Why `serve` ends before it spawns anything; [] if it would spawn.

    Args:
        plain: as `sglang serve` with variables, which nobody checks before SGLang has resolved its
            arguments.
    """
    from sglang.srt.plugins import load_plugins

    said = io.StringIO()
    spawn = mock.Mock(side_effect=SpawnedError)
    try:
        launch = unchecked(argv) if plain else serve.check(argv)
        with (
            mock.patch.dict(os.environ, launch.settings.environment()),
            contextlib.ExitStack() as stack,
        ):
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(said))
            load_plugins()
            stack.enter_context(mock.patch.object(runtime, "current", runtime.Runtime(read())))
            stack.enter_context(
                mock.patch("sglang.srt.entrypoints.engine.PortArgs.init_new", spawn)
            )
            serve.run(launch)
    except SettingsError as error:
        return str(error).splitlines()
    except SpawnedError:
        return []
    except SystemExit:
        lines = said.getvalue().splitlines()
        return [line.removeprefix(PREFIX) for line in lines if line.startswith(PREFIX)] or lines[
            -1:
        ]
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
    raise AssertionError("serve came back")


def unchecked(argv: Sequence[str]) -> serve.Launch:
    given, rest = split_flags(argv)
    return serve.Launch(read(given), rest)


def examined(argv: Sequence[str]) -> tuple[bool, list[str], str]:
    """Whether `doctor` says that it would be served, its refusals, and its whole output."""
    said = io.StringIO()
    with mock.patch.dict(os.environ), contextlib.redirect_stdout(said):
        with contextlib.suppress(SettingsError):
            launch = serve.check(argv)
            runtime.current = runtime.Runtime(launch.settings)
        yes = doctor.examine(argv)
    logging.disable(logging.NOTSET)
    lines = said.getvalue().splitlines()
    return (
        yes,
        [line.removeprefix("✗ ") for line in lines if line.startswith("✗ ")],
        said.getvalue(),
    )
