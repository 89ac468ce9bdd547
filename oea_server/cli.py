"""The command line `oea-server`: parse, call, print.

The laboratory's commands are entry points of the group `oea_server.commands`: functions, or Typer
applications."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import Annotated, NoReturn

import typer

from oea_server.client.config_command import app as config
from oea_server.patching.commands import app as patch
from oea_server.provenance import commit, version
from oea_server.terminal import forgiving

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Serve Mixture-of-Experts models faster: SGLang with OEA routing.",
)
app.add_typer(config, name="config")
app.add_typer(patch, name="patch")
PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(context_settings=PASS_THROUGH)
def serve(context: typer.Context) -> None:
    """Serve a model: --oea-* flags are ours, all others are SGLang's (try: serve --help)."""
    from oea_server import serve as launcher
    from oea_server.settings import SettingsError

    if {"-h", "--help"} & set(context.args):
        _print_flags("serve", "serves the demo model if no --model-path is given")
        return
    try:
        launch = launcher.check(context.args)
    except SettingsError as error:
        _refuse(error)
    launcher.run(launch)


@app.command(context_settings=PASS_THROUGH)
def doctor(context: typer.Context) -> None:
    """Say whether `serve` with the same flags would serve, and whether that would be OEA; why not,
    if not.

    Exits with 0 if it would serve, by the policy or vanilla, and with 1 if it would refuse.

    With --on h100|h200|b200|b300|gb200|gb300|rtx6000 it answers for that card, which need not be
    here, and with --model-config FILE for a model that is not: 0 only where it would be routed."""
    if {"-h", "--help"} & set(context.args):
        _print_flags(
            "doctor",
            "takes the flags of serve, starts nothing; --on CARD [--model-config FILE] asks"
            " elsewhere",
        )
        return
    from oea_server.absent.question import asked_elsewhere

    if asked_elsewhere(context.args):
        from oea_server.absent.command import examine as examine_elsewhere
        from oea_server.settings import SettingsError

        try:
            raise typer.Exit(0 if examine_elsewhere(context.args) else 1)
        except SettingsError as error:
            _refuse(error)
    from oea_server.doctor import examine

    raise typer.Exit(0 if examine(context.args) else 1)


for entry in entry_points(group="oea_server.commands"):
    command = entry.load()
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=entry.name)
    else:
        app.command(entry.name)(command)


@app.callback(invoke_without_command=True)
def main(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print versions and exit.")
    ] = False,
) -> None:
    """Batch-aware expert routing for SGLang."""
    if show_version:
        print(f"oea-server {version('oea-server')} (commit {commit()}, sglang {version('sglang')})")
        raise typer.Exit


def run() -> None:
    """The command `oea-server`."""
    with forgiving():
        app(prog_name="oea-server")


def _print_flags(command: str, what: str) -> None:
    from oea_server.settings import argument_parser

    parser = argument_parser()
    parser.prog = f"oea-server {command}"
    parser.usage = f"oea-server {command} [--oea-* flags] [SGLang's flags]"
    parser.epilog = (
        f"{command} {what}. Every flag has a variable: --oea-k0 is OEA_K0. SGLang's flags: sglang"
        " serve --help"
    )
    parser.print_help()


def _refuse(error: Exception) -> NoReturn:
    for line in str(error).splitlines():
        print(f"oea-server: {line}", file=sys.stderr)
    raise typer.Exit(2)
