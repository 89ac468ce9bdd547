"""Several `oea-server` commands in one process, which imports torch once for all of them.

Run: python -m tests.documents.together, with a JSON list of lists of words as its input. Prints a
JSON list of each one's exit status and output.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys

import typer

from oea_server.cli import app


def run(words: list[str]) -> tuple[int, str]:
    """As `oea-server WORDS` would; a traceback is of this process, which it ends."""
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        try:
            code = app(words, prog_name="oea-server", standalone_mode=False)
        except (SystemExit, typer.Exit) as end:
            code = getattr(end, "exit_code", getattr(end, "code", 1))
    return int(code or 0), said.getvalue()


if __name__ == "__main__":
    print("\n" + json.dumps([run(words) for words in json.load(sys.stdin)]))
