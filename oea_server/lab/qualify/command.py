"""`oea-server qualify`: parse, refuse, play, judge, keep, and say it by the exit code."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from oea_server.lab.records import options
from oea_server.oneline import oneline

MOST_AT_ONCE = 4096
MOST_ROUNDS = 1000
MOST_SEEDS = 1000
MAX_SEED = 2**31 - 1
HOTTEST = 2.0
MARGINS = (0.0001, 0.5)
LONGEST = 600
"""Characters of the line that says what is wrong."""
INTERRUPTED = 130


def qualify(
    server_flags: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- FLAGS]", help="of `serve`, for the server that is started"),
    ] = None,
    tasks: Annotated[
        Path | None,
        typer.Option(
            "--tasks", metavar="FILE", help='{"prompt", "answer", "check"} a line; docs/qualify.md'
        ),
    ] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option("--candidate", metavar="KNOBS", help='"k0=3,share=0.2"; repeat it for more'),
    ] = None,
    margin: Annotated[
        str | None,
        typer.Option(
            "--margin", metavar="M", help="of accuracy, that may be lost: 0.02 is 2 points"
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="URL", help="a running oea-server; if not given, one is started"
        ),
    ] = None,
    model_path: Annotated[
        str | None,
        typer.Option(
            "--model-path", metavar="DIR", help="to start a server of; the demo's if not given"
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", metavar="FILE", help="with the server's admin key; or OEA_KEY"),
    ] = None,
    max_tokens: Annotated[
        str, typer.Option("--max-tokens", metavar="N", help="of tasks that say nothing")
    ] = "32",
    concurrency: Annotated[
        str, typer.Option("--concurrency", metavar="B", help="answers at once")
    ] = "16",
    rounds: Annotated[
        str,
        typer.Option(
            "--rounds",
            metavar="R",
            help="in which the tasks are dealt out; fewer if blocks get small",
        ),
    ] = "8",
    temperature: Annotated[
        str, typer.Option("--temperature", metavar="T", help="0 is greedy")
    ] = "0",
    seeds: Annotated[
        str, typer.Option("--seeds", metavar="N", help="answers to each task, if not greedy")
    ] = "1",
    seed: Annotated[
        str, typer.Option("--seed", metavar="S", help="of the order, and of the first answers")
    ] = "0",
    completions: Annotated[
        bool, typer.Option("--completions", help="prompts as they are, without the chat's template")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="what is kept; the same run goes on from there"),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="OLD.json", help="an older record to compare with"),
    ] = None,
) -> None:
    """Show by a model's own answers that a rule costs no more accuracy than a margin, and what it
    buys.

    Exits with 0 if every candidate is shown to be no worse, 1 if one is shown to be worse, 3 if the
    samples cannot tell, and 2 with one line where something can be put right."""
    from oea_server.lab.qualify.candidates import CandidateError
    from oea_server.lab.qualify.candidates import read as read_candidates
    from oea_server.lab.qualify.tasks import TaskError
    from oea_server.lab.qualify.tasks import read as read_tasks

    try:
        if tasks is None:
            _end("--tasks: give a file of tasks, one JSON object a line (docs/qualify.md)")
        if margin is None:
            _end("--margin: give what may be lost, such as 0.02, 2 points of accuracy")
        if url is not None and (model_path is not None or server_flags):
            given = (
                "--model-path"
                if model_path is not None
                else server_flags[0]
                if server_flags
                else ""
            )
            _end(f"{given}: is for a server that is started; with --url one runs already")
        allowed = options.real("--margin", margin, *MARGINS)
        heat = options.real("--temperature", temperature, 0.0, HOTTEST)
        at_once = options.number("--concurrency", concurrency, 2, MOST_AT_ONCE)
        length = options.number("--max-tokens", max_tokens, 2, 1_000_000)
        parts = options.number("--rounds", rounds, 1, MOST_ROUNDS)
        times = options.number("--seeds", seeds, 1, MOST_SEEDS)
        first = options.number("--seed", seed, 0, MAX_SEED - MOST_SEEDS)
        folder = options.folder("--out", out) or Path(f"qualify-{datetime.now():%Y%m%d-%H%M%S}")
        chosen = read_candidates(candidate or [])
        file = read_tasks(tasks)
        if times > 1 and heat == 0:
            _end(
                f"--seeds={times}: greedy answers are all alike; give a --temperature, or one seed"
            )
        for place, task in enumerate(file.tasks, 1):
            if completions and (task.messages is not None or task.system is not None):
                _end(f"--completions: task {place} is a chat; only a prompt can be completed")
            if heat and task.judged_by == "agree":
                _end(
                    f"--temperature={heat:g}: task {place} is judged by vanilla's greedy answer"
                    " (check=agree)"
                )
    except (options.OptionError, CandidateError, TaskError) as error:
        _end(str(error))
    command = [
        "--tasks",
        file.name,
        *(part for each in chosen for part in ("--candidate", each.name)),
    ]
    command += [
        "--margin",
        f"{allowed:g}",
        "--max-tokens",
        str(length),
        "--concurrency",
        str(at_once),
    ]
    command += [
        "--rounds",
        str(parts),
        *(["--temperature", f"{heat:g}", "--seeds", str(times)] if heat else []),
    ]
    command += ["--seed", str(first), *(["--completions"] if completions else [])]
    command += (
        ["--url", url] if url else (["--model-path", Path(model_path).name] if model_path else [])
    )
    command += ["--", *server_flags] if server_flags else []

    from oea_server.lab.qualify import qualifying, stopping

    wanted = qualifying.Wanted(
        tasks=file,
        candidates=chosen,
        margin=allowed,
        max_tokens=length,
        temperature=heat,
        completions=completions,
        concurrency=at_once,
        rounds=parts,
        seeds=times,
        seed=first,
        folder=folder,
        against=against,
        command=shlex.join(["oea-server", "qualify", *command]),
    )
    with stopping.terminated_as_interrupted():
        try:
            code = qualifying.qualify(
                wanted, qualifying.Where(url, key_file, model_path, tuple(server_flags or ()))
            )
        except KeyboardInterrupt:
            print(
                f"oea-server: stopped; the same command with --out {folder} goes on from there",
                file=sys.stderr,
            )
            raise typer.Exit(INTERRUPTED) from None
        except qualifying.FAULTS as error:
            _end(str(error) or type(error).__name__)
    raise typer.Exit(code)


def _end(line: str) -> NoReturn:
    print(f"oea-server: {oneline(line, LONGEST)}", file=sys.stderr)
    raise typer.Exit(2)
