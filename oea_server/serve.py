"""`oea-server serve`: check what can be checked in a second, then hand over to SGLang."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import NamedTuple

from oea_server.demo.shipped import MODEL
from oea_server.engine import conflicts, model_card
from oea_server.observe import latency
from oea_server.settings import Settings, SettingsError, read, split_flags

PLUGINS = {"sglang.srt.plugins": "oea", "sglang.srt.platforms": "oea_cpu"}
DEMO_FLAGS = {"--served-model-name": "demo", "--max-total-tokens": "65536"}
"""The demo's own defaults; without the second SGLang fills most of the machine's memory with KV cache."""


class Launch(NamedTuple):
    """A checked launch."""

    settings: Settings
    sglang_argv: list[str]


def check(argv: Sequence[str]) -> Launch:
    """Split and check a command line without importing torch or SGLang.

    Raises:
        SettingsError: one line per problem: a knob, its value and the bounds, or an SGLang option
            that would make routing inert.
    """
    given, rest = split_flags(argv)
    settings = read(given)
    problems = plugin_problems(os.environ.get("SGLANG_PLUGINS", "")) + latency.problems(settings.latency_line)
    if settings.policy != "vanilla":
        problems += conflicts.find_in_flags(rest)
    if (model := model_of(rest)) is not None:
        problems += model_card.problems(settings, model_card.read_local(model, override_of(rest)))
    if problems:
        raise SettingsError("\n".join(problems))
    return Launch(settings, rest)


def run(launch: Launch) -> None:
    """Serve. Returns when the server ends."""
    argv = launch.sglang_argv
    if model_of(argv) is None:
        argv = demo_argv(argv)
    if "--enable-metrics" not in argv:
        argv = [*argv, "--enable-metrics"]
    os.environ.update(launch.settings.environment())
    k0 = f", k0 {launch.settings.k0}" if launch.settings.policy in ("oea", "pruned") else ""
    print(f"oea-server: policy {launch.settings.policy}{k0}; starting SGLang on {model_of(argv)}", flush=True)
    sys.argv = ["sglang", "serve", *argv]
    from sglang.cli.main import main

    main()


def demo_argv(argv: Sequence[str]) -> list[str]:
    """The command line completed to serve the demo model."""
    argv = [*argv, "--model-path", str(MODEL)]
    for flag, value in DEMO_FLAGS.items():
        if not any(argument.split("=")[0] == flag for argument in argv):
            argv += [flag, value]
    return argv


def model_of(argv: Sequence[str]) -> str | None:
    """The model that a command line for SGLang names: a flag, or the first word."""
    if argv and not argv[0].startswith("-"):
        return argv[0]
    return _value(argv, "--model-path", "--model")


def override_of(argv: Sequence[str]) -> str | None:
    """The config override of a command line for SGLang, JSON."""
    return _value(argv, "--json-model-override-args")


def plugin_problems(allowed: str) -> list[str]:
    """Why SGLang would not load us, if it wouldn't: it says nothing then."""
    names = [name.strip() for name in allowed.split(",") if name.strip()]
    problems = []
    for group, name in PLUGINS.items():
        if not entry_points(group=group, name=name):
            problems.append(f"entry point {group}:{name} is not installed; run: pip install oea-server")
        if names and name not in names:
            problems.append(f"SGLANG_PLUGINS={allowed}: leaves out {name}, so SGLang would serve without us")
    return problems


def _value(argv: Sequence[str], *flags: str) -> str | None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(*flags, dest="value", nargs="?")
    value: str | None = parser.parse_known_args(list(argv))[0].value
    return value
