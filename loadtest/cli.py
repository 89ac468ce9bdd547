"""``python -m loadtest ab | soak | chaos | compare | steer``."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from loadtest.keeping import end, fail, folder_of, keep, provenance, refusing, typed
from loadtest.steer_command import steer
from oea_server.lab.records.options import Out

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Load on an oea-server: see docs/load-testing.md.",
)
app.command()(steer)

Url = Annotated[
    str | None, typer.Option(metavar="URL", help="a running oea-server; started here if not given")
]
Seed = Annotated[int, typer.Option(metavar="N", help="of prompts, lengths and orders")]
Chats = Annotated[int, typer.Option(min=1, max=512, help="at once")]


@app.command()
def ab(
    a: Annotated[
        str, typer.Option("--a", metavar="KNOB=VALUE,...", help="one configuration")
    ] = "policy=vanilla",
    b: Annotated[
        str, typer.Option("--b", metavar="KNOB=VALUE,...", help="the other")
    ] = "policy=oea,k0=3",
    null: Annotated[
        bool, typer.Option("--null", help="A against A: nothing should differ")
    ] = False,
    url: Url = None,
    layers: Annotated[
        int, typer.Option(min=1, max=48, help="Qwen3-30B-sized, of the server started here")
    ] = 4,
    pairs: Annotated[
        int,
        typer.Option(min=2, max=1000, help="of blocks; 10 or more to find anything significant"),
    ] = 12,
    chats: Chats = 16,
    requests: Annotated[int, typer.Option(min=2, max=100_000, help="per block")] = 16,
    tenant: Annotated[
        str, typer.Option(help="prompt, output and turns as in the locustfile")
    ] = "ab",
    seed: Seed = 0,
    key: Annotated[
        str | None, typer.Option(help="of the running server; rather --key-file, or OEA_KEY")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a file with that key")
    ] = None,
    out: Out = None,
) -> None:
    """Two configurations of one server by turns: paired differences with intervals; HTML, JSON,
    CSV, Markdown."""
    from loadtest import ab as measurement
    from loadtest import report, workload
    from oea_server.client import key as keys
    from oea_server.client.remote import Remote
    from oea_server.lab.bench.served import own_server

    with refusing():
        asker = workload.parse(tenant)
        first = measurement.knobs(a)
        plan = measurement.Plan(
            first, first if null else measurement.knobs(b), asker, pairs, chats, requests, seed
        )
    arms = ["--null", "--a", a] if null else ["--a", a, "--b", b]
    given = {"tenant": tenant, "pairs": pairs, "chats": chats, "requests": requests, "seed": seed}
    command = typed("ab", *arms, **({"url": "URL"} if url else {"layers": layers}), **given)
    name = "ab-null" if null else "ab"
    with refusing():
        if url is not None:
            found_key = keys.find(key, key_file, os.environ)
            record = measurement.measure(Remote(url.rstrip("/"), found_key), plan, found_key)
            model: dict[str, Any] = {"name": "a running server's model"}
        else:
            with own_server(layers, chats) as (server, found):
                record = measurement.measure(server, plan)
            model = {
                "name": found.model,
                "layers": found.layers,
                "bytes_per_expert": found.bytes_per_expert,
            }
            name += f"-{found.model}"
    paths = report.save({**record, "model": model, **provenance(command)}, folder_of(out), name)
    print(paths[2].read_text())
    print("kept: " + ", ".join(map(str, paths)))


@app.command()
def soak(
    requests: Annotated[
        int, typer.Option(min=100, max=10_000_000, help="after a warm-up of a fifth as many")
    ] = 10_000,
    beside: Annotated[
        int,
        typer.Option(
            min=0,
            max=10_000_000,
            help="so many, in turns, at SGLang without us; warm-ups of a fifth",
        ),
    ] = 0,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Thousands of good and bad requests on a CPU demo server; fails if anything leaked or was not
    answered."""
    from oea_server_demo import MODEL

    from loadtest import sides as measurement
    from loadtest import soaked
    from oea_server.client.server import Server, without_us

    # else SGLang fills most of the machine's memory with slots, and the demo needs few
    flags = ("--model-path", str(MODEL), "--max-total-tokens", "65536")
    bounds = measurement.Bounds(requests, seed, beside)
    with ExitStack() as servers:
        server = servers.enter_context(Server(*flags))
        plain = servers.enter_context(without_us(*flags)) if beside else None
        record = measurement.soak(server, bounds, plain)
    given = {"requests": requests, **({"beside": beside} if beside else {}), "seed": seed}
    record |= provenance(typed("soak", **given))
    path, kept = keep(record, folder_of(out), "soak", soaked.markdown)
    soaked.draw(kept, path.with_suffix(".png"))
    if record["missed"]:
        fail(*record["missed"])


@app.command()
def chaos(
    faults: Annotated[
        list[str] | None, typer.Argument(metavar="[FAULT]...", help="all if none is named")
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="into the record that is there, in place of what it says of these"
        ),
    ] = False,
    out: Out = None,
) -> None:
    """Faults on CPU demo servers; each has to end in a right answer, a clear error or the end of
    the server."""
    from rich.console import Console

    from loadtest.chaos import all as every
    from loadtest.chaos import outcome

    named = faults or []
    unknown = set(named) - {*every.SHARED, *every.OWN}
    if unknown:
        end(
            f"{', '.join(sorted(unknown))}: no such fault; there are"
            f" {', '.join((*every.SHARED, *every.OWN))}"
        )
    command, before = (
        typed("chaos", *(["--again"] if again else []), *named),
        list[outcome.Outcome](),
    )
    if again:
        with refusing():
            kept = json.loads((folder_of(out) / "chaos.json").read_text())
        command, before = f"{kept['command']} && {command}", outcome.read(kept)
    outcomes = every.run(named, Console(highlight=False))
    record = {
        "benchmark": "chaos",
        "outcomes": [each._asdict() for each in outcome.renewed(before, outcomes)],
        **provenance(command),
    }
    keep(record, folder_of(out), "chaos", outcome.markdown)
    if any(each.verdict == outcome.BROKE for each in outcomes):
        fail(outcome.tally(outcomes))


@app.command()
def compare(
    url: Url = None,
    layers: Annotated[
        int, typer.Option(min=1, max=48, help="Qwen3-30B-sized, of the server started here")
    ] = 2,
    rounds: Annotated[int, typer.Option(min=2, max=100)] = 7,
    chats: Chats = 16,
    requests: Annotated[int, typer.Option(min=16, max=100_000, help="per round and client")] = 96,
    prompt: Annotated[int, typer.Option(min=1, max=100_000, help="tokens")] = 32,
    output: Annotated[int, typer.Option(min=2, max=100_000, help="tokens")] = 48,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """The same load by Locust and by SGLang's own client; fails if their figures are more than 5 %
    apart."""
    from loadtest import compare as measurement
    from oea_server.lab.bench.served import own_server

    plan = measurement.Plan(rounds, chats, requests, prompt, output, seed)
    given = {
        "rounds": rounds,
        "chats": chats,
        "requests": requests,
        "prompt": prompt,
        "output": output,
        "seed": seed,
    }
    command = typed("compare", **({"url": "URL"} if url else {"layers": layers}), **given)
    with refusing():
        if url is not None:
            record = measurement.compare(url.rstrip("/"), plan)
        else:
            # not the demo model: its steps are so short that on few cores the clients' own work
            # slows the server
            with own_server(layers, chats) as (server, _):
                record = measurement.compare(server.url, plan)
    record |= provenance(command)
    keep(record, folder_of(out), "compare", measurement.markdown)
    apart = [row["name"] for row in record["rows"] if row["judged"] and not row["agrees"]]
    if apart:
        fail(f"more than {measurement.BAR:.0%} apart: {', '.join(apart)}")
