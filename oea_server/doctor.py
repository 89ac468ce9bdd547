"""`oea-server doctor`: would serving be OEA on this machine, with these flags?"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import platform
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from oea_server import serve
from oea_server.provenance import commit, version
from oea_server.settings import Settings, SettingsError

PACKAGES = ("oea-server", "sglang", "torch", "transformers", "triton")


def examine(argv: Sequence[str]) -> bool:
    """Print what was found; whether serving would be OEA."""
    console = Console(highlight=False, soft_wrap=True)
    say = console.print
    say(
        "[bold]versions[/]  "
        + ", ".join(f"{name} {version(name)}" for name in PACKAGES)
        + f", python {platform.python_version()}, commit {commit()}"
    )
    try:
        launch = serve.check(argv)
    except SettingsError as error:
        problems = str(error).splitlines()
    else:
        with console.status("importing SGLang"):
            facts, problems = _examine_engine(launch)
        for name, fact in facts:
            say(f"[bold]{name:8}[/]  {escape(fact)}")
        if launch.settings.policy in ("vanilla", "shadow"):
            problems.append(f"the policy is {launch.settings.policy}")
    for problem in problems:
        say(f"[red]✗[/] {escape(problem)}")
    say("[red]serving would not be OEA[/]" if problems else "[green]✓ serving would be OEA[/]")
    return not problems


def _examine_engine(launch: serve.Launch) -> tuple[list[tuple[str, str]], list[str]]:
    """Facts (name, text) and problems, from the SGLang that is installed."""
    logging.disable(logging.WARNING)
    os.environ.update(launch.settings.environment())
    from sglang.srt.platforms import current_platform
    from sglang.srt.plugins import load_plugins

    from oea_server.engine import conflicts, plugin
    from oea_server.engine.launch import card_of
    from oea_server.engine.launch import problems as launch_problems

    facts = [("device", f"{current_platform.device_name} ({type(current_platform).__name__})")]
    try:
        with contextlib.redirect_stderr(io.StringIO()) as refusal:
            load_plugins()
    except SystemExit:
        return facts, refusal.getvalue().splitlines()
    inside = f", {sum(each.in_patch for each in plugin.SEAMS)} inside the patched SGLang" if plugin.patched else ""
    facts.append(("seams", f"{len(plugin.SEAMS)} of {len(plugin.SEAMS)} hold{inside}"))
    if current_platform.device_type == "cpu":
        from oea_server.engine.cpu_experts import describe

        facts.append(("experts", describe()))
    argv = launch.sglang_argv if serve.model_of(launch.sglang_argv) else serve.demo_argv(launch.sglang_argv)
    try:
        from sglang.srt.server_args import prepare_server_args

        server_args = prepare_server_args(argv)
        getattr(server_args, "resolve_once", lambda: None)()
    except (Exception, SystemExit) as error:
        return facts, [f"SGLang does not take these arguments: {error}"]
    card = card_of(conflicts.resolved(server_args))
    problems = launch_problems(launch.settings, server_args, card)
    if card is not None and card.problem is not None:
        problems.append(f"{card.problem}: it would be served vanilla")
    if card is not None:
        facts.append(("model", f"{server_args.model_path}: {card.num_experts} experts, top {card.k}"))
        facts.append(("policy", _describe(launch.settings, card.k)))
    return facts, problems


def _describe(settings: Settings, k: int) -> str:
    policy = settings.shadow_for(k) or settings.policy_for(k)
    knobs = {"k0": policy.k0, "p": policy.p, "k_max": policy.k_max or k, "max_rank": policy.max_rank or "all"}
    of: dict[str, dict[str, Any]] = {"oea": knobs, "pruned": {"k0": policy.k0}, "random": {"seed": policy.seed}}
    shown = of.get(policy.name, {})
    return ", ".join([settings.policy, *(f"{name} {value}" for name, value in shown.items())])
