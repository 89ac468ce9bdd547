"""``python -m oea_server.quality eval | calibrate``."""

from __future__ import annotations

import typer

from oea_server.quality.commands import calibrate, evaluate

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Quality against experts read: see docs/quality.md.")
app.command("eval")(evaluate)
app.command("calibrate")(calibrate)
app()
