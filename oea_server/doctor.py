"""`oea-server doctor`: would `serve` serve these flags here, and would that be OEA?

It goes the way that `serve` goes, with the same functions, up to where SGLang would spawn.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape

from oea_server import folders, serve, shipped
from oea_server.command_line import model_of
from oea_server.engine.model_card import ModelCard
from oea_server.engine.refuse import PREFIX
from oea_server.engine.seams import SEAMS
from oea_server.provenance import commit, version
from oea_server.settings import Settings, SettingsError

PACKAGES = ("oea-server", "sglang", "torch", "transformers", "triton")
Fact = tuple[str, str]
"""A short name and what was found."""


class Examination(NamedTuple):
    """What doctor found. `problems`: why serve refuses; `inactive`: why it serves vanilla."""

    model: str
    facts: list[Fact]
    problems: list[str]
    inactive: str | None = None


def examine(argv: Sequence[str]) -> bool:
    """Print what was found; whether `serve` would serve."""
    console = Console(highlight=False, soft_wrap=True)
    say = console.print
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    say(f"[bold]versions[/]  {packages}, python {platform.python_version()}, commit {commit()}")
    with console.status("importing SGLang"):
        found = look(argv)
    for name, fact in (("model", found.model), *found.facts):
        say(f"[bold]{name:8}[/]  {escape(fact)}")
    for problem in found.problems:
        say(f"[red]✗[/] {escape(problem)}")
    if found.problems:
        say("[red]serving would not be OEA: serve refuses this[/]")
    elif found.inactive is not None:
        say(f"[yellow]serving would be vanilla, not OEA: {escape(found.inactive)}[/]")
    else:
        say("[green]✓ serving would be OEA[/]")
    return not found.problems


@contextlib.contextmanager
def silenced(level: int = logging.WARNING) -> Iterator[None]:
    """Without what SGLang says, up to a level, while it is only looked at."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)


@silenced()
def look(argv: Sequence[str]) -> Examination:
    """Find out what `serve` would do with this command line."""
    where = "unknown"
    try:
        with contextlib.suppress(shipped.NotInstalledError):
            where = located(model_of(argv) or str(shipped.model()))
        launch = serve.check(argv)
    except SettingsError as error:
        return Examination(where, [], str(error).splitlines())
    os.environ.update(launch.settings.environment())
    facts: list[Fact] = []
    if (unwritable := folders.fact(os.environ)) is not None:
        facts.append(("folders", unwritable))
    try:
        with refusals():
            facts += engine_facts()
            server_args = resolved_args(launch)
    except RefusedError as refusal:
        return Examination(where, facts, refusal.lines)
    from oea_server.engine import conflicts, int4
    from oea_server.engine.launch import judge

    facts += [("experts", said) for said in int4.note(server_args)]
    view = conflicts.resolved(server_args)
    where = located(view.model_path, view.revision)
    verdict = judge(launch.settings, server_args)
    if verdict.card is not None:
        said = {name: fact(launch.settings, view, verdict.card) for name, fact in FACTS.items()}
        facts += [(name, text) for name, text in said.items() if text is not None]
    problems = list(verdict.problems)
    if not problems:
        try:
            with refusals():
                server_args.check_server_args()
        except RefusedError as refusal:
            problems += refusal.lines
    served_anyway = launch.settings.policy == "vanilla" or launch.settings.allow_inactive
    if verdict.doubt is not None and not served_anyway and not problems:
        problems.append(
            f"{verdict.doubt}: only the routers that SGLang builds can tell; serve builds them"
            " before weights load"
        )
    inactive = verdict.inactive
    if inactive is None and verdict.doubt is not None:
        inactive = f"perhaps: {verdict.doubt}; the routers that SGLang builds decide"
    return Examination(where, facts, problems, inactive)


class RefusedError(Exception):
    """SGLang, or our plug-in in it, ended the process or raised."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(*lines)
        self.lines = lines


@contextlib.contextmanager
def refusals(who: str = "SGLang does not take these arguments") -> Iterator[None]:
    """Turn whatever would end `serve` into `RefusedError`, with what would have been printed.

    Args:
        who: said in front of what is not ours.

    Raises:
        RefusedError
    """
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            yield
        except SystemExit as end:
            lines = said.getvalue().splitlines()
            ours = [line.removeprefix(PREFIX) for line in lines if line.startswith(PREFIX)]
            theirs = lines[-1] if lines else f"exit {end.code}"
            raise RefusedError(ours or [f"{who}: {' '.join(theirs.split())}"]) from None
        except Exception as error:
            theirs = f"{type(error).__name__}: {error}"
            raise RefusedError([f"{who}: {' '.join(theirs.split())}"]) from None


def resolved_args(launch: serve.Launch) -> Any:
    """SGLang's arguments, after its own defaulting."""
    from sglang.srt.server_args import prepare_server_args

    from oea_server.engine import int4, locks

    server_args = prepare_server_args(without_model_type(serve.command(launch)))
    getattr(server_args, "resolve_once", lambda: None)()
    locks.take(server_args)
    int4.steer(launch.settings, server_args)
    return server_args


def without_model_type(argv: list[str]) -> list[str]:
    """A command line without what only `sglang serve` itself reads."""
    flag = "--model-type"
    return [
        argument
        for i, argument in enumerate(argv)
        if argument.split("=")[0] != flag and (i == 0 or argv[i - 1] != flag)
    ]


def located(model: str, revision: str | None = None) -> str:
    """A model's name with its directory: of a path, or of a hub name's files on this machine."""
    if Path(model).exists():
        return str(Path(model).absolute())
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(model, "config.json", revision=revision)
    except ValueError:  # no hub name
        config = None
    if isinstance(config, str):
        return f"{model}, in {Path(config).parent}"
    return f"{model}, no directory, and not in the hub's cache on this machine"


def engine_facts() -> list[Fact]:
    """The device and the seams; activates the plug-in."""
    from sglang.srt.platforms import current_platform

    from oea_server.engine import plugin

    facts = [("device", f"{current_platform.device_name} ({type(current_platform).__name__})")]
    serve.load_plug_in()
    within = sum(seam.in_patch for seam in SEAMS)
    inside = f", {within} inside the patched SGLang" if plugin.patched else ""
    facts.append(("seams", f"{len(SEAMS)} of {len(SEAMS)} hold{inside}"))
    if left := plugin.leftover():
        facts.append(
            (
                "left",
                (
                    f"{left}, of an SGLang that was patched: nothing imports it; oea-server patch"
                    " revert"
                ),
            )
        )
    if current_platform.device_type == "cpu":
        from oea_server.cpu.experts import describe

        facts.append(("experts", describe()))
    return facts


def routers_fact(settings: Settings, view: Any, card: ModelCard) -> str | None:
    return f"{card.num_experts} experts, top {card.k or 'unknown'}" if card.num_experts else None


def policy_fact(settings: Settings, view: Any, card: ModelCard) -> str | None:
    return _describe(settings, card.k) if card.k else None


def large_batches_fact(settings: Settings, view: Any, card: ModelCard) -> str | None:
    from oea_server.engine import limits

    return limits.fact(str(getattr(view, "device", "")))


def keys_fact(settings: Settings, view: Any, card: ModelCard) -> str | None:
    control = (
        "an admin key"
        if view.admin_api_key
        else "the API key"
        if view.api_key
        else "no key, and this machine"
    )
    served = "the API key" if view.api_key else "no key"
    return (
        f"{control} changes what serves; {served} is served; starlette {version('starlette')} keeps"
        " keys"
    )


def network_fact(settings: Settings, view: Any, card: ModelCard) -> str | None:
    return (
        f"HTTP on {view.host}:{view.port}; whatever --host says, PyTorch's store listens on every"
        " interface, on a port of its own, and asks for no key: close it to others"
    )


FACTS: dict[str, Callable[[Settings, Any, ModelCard], str | None]] = {
    "routers": routers_fact,
    "policy": policy_fact,
    "batches": large_batches_fact,
    "keys": keys_fact,
    "network": network_fact,
}
"""Facts about a launch that SGLang can resolve, in the order shown. Each is a name -> a function of
the settings, SGLang's resolved arguments and the model's card; None says nothing."""


def _describe(settings: Settings, k: int) -> str:
    policy = settings.shadow_for(k) or settings.policy_for(k)
    knobs = {
        "k0": policy.k0,
        "share": policy.share or 0,
        "mix": policy.mix,
        "p": policy.p,
        "k_max": policy.k_max or k,
        "max_rank": policy.max_rank or "all",
    }
    of: dict[str, dict[str, Any]] = {
        "oea": knobs,
        "pruned": {"k0": policy.k0},
        "random": {"seed": policy.seed},
    }
    shown = of.get(policy.name, {})
    return ", ".join([settings.policy, *(f"{name} {value}" for name, value in shown.items())])
