"""`oea-server eval` and `calibrate`: parse, refuse, measure, keep, print."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from oea_server.lab.records import options
from oea_server.lab.records.options import Out
from oea_server.oneline import oneline

GRID = ";".join(
    [
        "vanilla",
        *(f"pruned:{k0}" for k0 in range(1, 8)),
        *(f"oea:{k0}" for k0 in range(1, 8)),
    ]
)
"""The paper's picture."""

NO_RECORD = (
    *(LookupError, TypeError, AttributeError, ArithmeticError, StopIteration, RecursionError),
    *(json.JSONDecodeError, UnicodeDecodeError),
)
"""What comes of reading one out of something else."""


Model = Annotated[
    str | None,
    typer.Option("--model", metavar="DIR", help="a Hugging Face MoE; the demo's if not given"),
]
Text = Annotated[
    Path | None,
    typer.Option(
        "--text", metavar="FILE", help=".jsonl of names and texts, or one text; the demo's held-out"
    ),
]
Arms = Annotated[
    str,
    typer.Option(
        "--policies",
        metavar="P;…",
        help="oea:3, pruned:3, oea:3/max_rank=8, share:0.13, vote:24, …",
    ),
]


def evaluate(
    model: Model = None,
    text: Text = None,
    batch: Annotated[
        str, typer.Option("--batch", metavar="B,…", help="tokens per step")
    ] = "1,4,8,16,32,64",
    policies: Arms = GRID,
    sequences: Annotated[
        str, typer.Option("--sequences", metavar="S", help="a multiple of the largest batch")
    ] = "256",
    length: Annotated[str, typer.Option("--length", metavar="L", help="tokens of each")] = "128",
    order: Annotated[
        str, typer.Option("--order", help="batches: mixed, or each from one document")
    ] = "mixed",
    ranks: Annotated[
        str, typer.Option("--ranks", metavar="R,…", help="count the busiest of so many equal parts")
    ] = "",
    seed: Annotated[
        str, typer.Option("--seed", metavar="N", help="of the order and the intervals")
    ] = "0",
    name: Annotated[str, typer.Option("--name", help="of the files")] = "eval",
    out: Out = None,
    served: Annotated[
        bool, typer.Option("--served", help="on a live server, and offline beside it")
    ] = False,
    gate: Annotated[
        bool, typer.Option("--gate", help="only judge the demo model by the thresholds that ship")
    ] = False,
    reset: Annotated[
        bool, typer.Option("--set", help="with --gate: set them to what is measured now")
    ] = False,
) -> None:
    """Cross-entropy against experts read, by the paper's protocol; what was measured is kept, and a
    rerun goes on."""
    if reset and not gate:
        _end("--set: sets the thresholds of the gate, so it needs --gate")
    if served and ranks:
        _end("--ranks: a live server's steps are not split into parts; leave it out with --served")
    if gate:
        _gate(reset)
        return
    from oea_server.lab.quality.grammar import ArmError, read_all

    try:
        batches = options.numbers("--batch", batch, 1, options.MAX_BATCH)
        size = options.number("--length", length, 2, 1_000_000)
        count = options.number("--sequences", sequences, 2, 1_000_000)
        number = options.number("--seed", seed, 0, 2**31 - 1)
        parts = options.numbers("--ranks", ranks, 1, options.MAX_EXPERTS) if ranks else []
        options.names("--order", [order], ("mixed", "document"))
        folder = options.folder("--out", out)
        spelled = read_all(policies, batches)
    except (options.OptionError, ArmError) as error:
        _end(str(error))
    if count % max(batches) or any(max(batches) % each for each in batches):
        _end(
            f"--sequences={count} --batch={batch}: each batch size has to divide the largest, and"
            " that the sequences"
        )
    command = {
        "batch": batch,
        "policies": policies,
        "sequences": count,
        "length": size,
        "order": order,
    }
    command |= {"ranks": ranks} if ranks else {}
    command |= {"seed": number, "name": name} | ({"model": Path(model).name} if model else {})
    flags = [part for key, value in command.items() for part in (f"--{key}", str(value))]
    line = shlex.join(["oea-server", "eval", *(["--served"] if served else []), *flags])

    from oea_server.lab.quality.arms import of
    from oea_server.lab.quality.evaluation import Wanted

    arms = [of(each) for each in spelled]
    if served:  # it imports SGLang
        from oea_server.lab.quality.served_evaluation import evaluate as method
    else:
        from oea_server.lab.quality.evaluation import evaluate as method
    try:
        method(
            model,
            text,
            Wanted(arms, batches, parts, count, size, order, number),
            line,
            folder,
            name,
        )
    except (ValueError, RuntimeError, OSError) as error:
        _end((str(error).splitlines() or [type(error).__name__])[0])


def calibrate(
    record: Annotated[
        Path | None,
        typer.Argument(
            metavar="[EVAL.json]",
            help="of 'oea-server eval': only turn it into a schedule; measure nothing",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model-path", "--model", metavar="DIR", help="a Hugging Face MoE; the demo's"
        ),
    ] = None,
    text: Text = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="what is to be small: T (the default), busiest or latency"),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            metavar="NATS",
            help="increase in cross-entropy to allow; 1% means of vanilla's own",
        ),
    ] = "1%",
    latency: Annotated[
        str | None,
        typer.Option("--latency", metavar="FILE", help="a moe-*.json of 'oea-server bench moe'"),
    ] = None,
    ranks: Annotated[
        str | None, typer.Option("--ranks", metavar="R", help="that the experts are split over")
    ] = None,
    batch: Annotated[
        str | None, typer.Option("--batch", metavar="B,…", help="[2,4,8,16,32,64]")
    ] = None,
    sequences: Annotated[str | None, typer.Option("--sequences", metavar="S", help="[256]")] = None,
    length: Annotated[
        str | None, typer.Option("--length", metavar="L", help="tokens of each [128]")
    ] = None,
    seed: Annotated[
        str | None, typer.Option("--seed", metavar="N", help="of the order and the intervals [0]")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="of the files [calibrate]")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="benchmarks/results/<machine>; with EVAL.json the schedule's file",
        ),
    ] = None,
    k: Annotated[
        str | None,
        typer.Option("--k", metavar="K", help="with EVAL.json: the model's experts per token [8]"),
    ] = None,
) -> None:
    """Find the rules that read least within a budget of quality, as rungs and schedules that
    'serve' takes."""
    given = {"model": model, "text": text, "against": against, "ranks": ranks, "batch": batch}
    given |= {"sequences": sequences, "length": length, "seed": seed, "name": name}
    if record is None:
        if k is not None:
            _end("--k: a model's config says it; it is for an EVAL.json alone")
        _search({**given, "budget": budget, "latency": latency}, out)
        return
    if strange := next((name for name, value in given.items() if value is not None), None):
        _end(f"--{strange}: {oneline(str(record))} is measured already; leave out one of them")
    if out is None:
        _end("--out: name the schedule's file")
    _schedule(record, out, budget, latency, k or "8")


def _search(given: dict[str, Any], out: Path | None) -> None:
    from oea_server.lab.quality.search import asked

    try:
        wanted = asked.read(given)
        folder = options.folder("--out", out)
    except ValueError as error:
        _end(str(error))
    from oea_server.lab.quality.search.searching import search

    try:
        search(wanted, folder)
    except (ValueError, RuntimeError, OSError) as error:
        _end((str(error).splitlines() or [type(error).__name__])[0])


def _schedule(record: Path, out: Path, budget: str, latency: str | None, k: str) -> None:
    from oea_server.lab.quality import calibrate as method
    from oea_server.observe import latency as lines

    try:
        top = options.number("--k", k, 1, options.MAX_EXPERTS)
        content = json.loads(record.read_text(encoding="utf-8"))
        allowed = method.budget(budget, content)
        choices = method.choose(content, allowed, top, lines.read(latency) if latency else ())
        method.save(out, content, choices, allowed, top)
    except OSError as error:
        _end(f"{oneline(str(error.filename))}: {error.strerror}")
    except NO_RECORD:
        _end(f"{oneline(str(record))}: is not a record of 'oea-server eval'")
    except ValueError as error:
        _end(str(error))
    print(method.shown(choices))
    print(f"\n{method.flags(choices, top)}   or   --oea-schedule {out}")


def _gate(reset: bool) -> None:
    from oea_server.lab.quality import gate

    print("the gate: the demo model on its held-out text (about a minute)", flush=True)
    measured = gate.measure()
    found = gate.summary(measured)
    print(f"routed by: {', '.join(sorted({each.routing for each in measured.values()}))}")
    if reset:
        gate.keep(found)
    try:
        checks = gate.checks(found, gate.read())
    except ValueError as error:
        _end(str(error))
    for check in checks:
        print(f"{'ok    ' if check.passed else 'FAILED'} {check.what}: {check.found}")
    failed = sum(not check.passed for check in checks)
    if failed:
        print(
            f"oea-server: the gate is closed: {failed} of {len(checks)} checks failed",
            file=sys.stderr,
        )
        raise typer.Exit(1)
    print(f"the gate is open: {len(checks)} checks passed")


def _end(line: str) -> NoReturn:
    print(f"oea-server: {line}", file=sys.stderr)
    raise typer.Exit(2)
