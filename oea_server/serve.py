"""`oea-server serve`: check what can be checked in a second, then hand over to SGLang."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

from oea_server import folders, shipped
from oea_server.access import keys
from oea_server.command_line import completed, merged, model_of, override_of, value
from oea_server.controller import goal
from oea_server.engine import conflicts, model_card, overrides, plugin, tier_start
from oea_server.engine.refuse import refuse
from oea_server.observe import latency
from oea_server.settings import Settings, SettingsError, read, split_flags

PLUGINS = {"sglang.srt.plugins": "oea", "sglang.srt.platforms": "oea_cpu"}
DEMO_FLAGS = {"--served-model-name": "demo", "--max-total-tokens": "65536"}
"""The demo's own defaults; without the second SGLang fills most of the machine's memory with KV
cache."""


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
    problems = plugin_problems(os.environ)
    problems += (
        goal.problems(settings)
        + tier_start.problems(settings)
        + latency.problems(settings.latency_line)
        + key_problems(settings)
        + folders.problems(os.environ)
    )
    whole = merged(rest)
    if settings.policy != "vanilla":
        problems += conflicts.find_in_flags(whole)
    if value(whole, "--model-type") == "diffusion":
        problems.append(
            "--model-type diffusion: diffusion models have no experts to route; sglang serve takes"
            " them"
        )
    try:
        problems += card_problems(settings, whole if model_of(whole) else demo_argv(whole))
    except shipped.NotInstalledError as error:
        problems.append(f"no model is named (--model-path), and {error}")
    if problems:
        raise SettingsError("\n".join(problems))
    return Launch(settings, rest)


def key_problems(settings: Settings) -> list[str]:
    """What is wrong with the keys that are not on the command line."""
    environ = {**os.environ, **settings.environment()}
    problems = []
    for read_key in (keys.admin, keys.api):
        try:
            read_key(environ)
        except ValueError as error:
            problems.append(str(error))
    return problems


def card_problems(settings: Settings, argv: Sequence[str]) -> list[str]:
    """What the model's config on disk, if there is one, already rules out."""
    try:
        card = model_card.read_local(model_of(argv) or "", override_of(argv))
    except overrides.OverrideError as error:
        return [str(error)]
    return model_card.problems(settings, card)


def run(launch: Launch) -> None:
    """Serve. Returns when the server ends."""
    argv = command(launch)
    os.environ.update(launch.settings.environment())
    k0 = f", k0 {launch.settings.k0}" if launch.settings.policy in ("oea", "pruned") else ""
    print(
        f"oea-server: policy {launch.settings.policy}{k0}; starting SGLang on {model_of(argv)}",
        flush=True,
    )
    sys.argv = ["sglang", "serve", *argv]
    from sglang.cli.main import main

    load_plug_in()
    main()


def load_plug_in() -> None:
    """Have SGLang load its plug-ins, as it does once it has control; end the process if ours is not
    in force then.

    SGLang only logs why it leaves one out, and serves on.
    """
    from sglang.srt.plugins import load_plugins

    load_plugins()
    if not plugin.active:
        refuse(
            "SGLang has loaded its plug-ins without oea-server's, so it would serve without us; the"
            " log may say why; unset SGLANG_PLUGINS, or install oea-server anew beside this SGLang"
        )


def command(launch: Launch) -> list[str]:
    """The flags that SGLang is given, all of them by name: the demo model if none is named."""
    argv = completed(launch.sglang_argv)
    if model_of(argv) is None:
        argv = demo_argv(argv)
    return argv if "--enable-metrics" in argv else [*argv, "--enable-metrics"]


def demo_argv(argv: Sequence[str]) -> list[str]:
    """The command line completed to serve the demo model.

    Raises:
        shipped.NotInstalledError
    """
    argv = [*argv, "--model-path", str(shipped.model())]
    for flag, default in DEMO_FLAGS.items():
        if value(merged(argv), flag) is None:
            argv += [flag, default]
    return argv


def plugin_problems(environ: Mapping[str, str]) -> list[str]:
    """Why SGLang would not load us, if it wouldn't: it says nothing then, or only in its log."""
    allowed, selected = environ.get("SGLANG_PLUGINS", ""), environ.get("SGLANG_PLATFORM", "")
    names = [name.strip() for name in allowed.split(",") if name.strip()]
    problems = []
    for group, name in PLUGINS.items():
        found = entry_points(group=group, name=name)
        if not found:
            problems.append(
                f"entry point {group}:{name} is not installed; run: pip install oea-server"
            )
        problems += [
            f"entry point {group}:{name}: {why}" for each in found if (why := unloadable(each))
        ]
        if names and name not in names:
            problems.append(
                f"SGLANG_PLUGINS={allowed}: leaves out {name}, so SGLang would serve without us;"
                f" add {name}, or unset it"
            )
    if selected and selected not in PLUGINS.values():
        problems.append(
            f"SGLANG_PLATFORM={selected}: leaves out oea-server, so SGLang would serve without us;"
            " unset it"
        )
    return problems


def unloadable(entry_point: EntryPoint) -> str | None:
    """Why an entry point cannot be loaded; None if it can."""
    try:
        entry_point.load()
    except Exception as error:
        return (
            f"{entry_point.value} cannot be loaded ({type(error).__name__}: {error}), so SGLang"
            " would do without it; install oea-server anew beside this SGLang"
        )
    return None
