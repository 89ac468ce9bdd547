"""``python -m loadtest steer``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from loadtest.keeping import folder_of, keep, provenance, refusing, typed
from oea_server.lab.records.options import Out

RUNGS = "deploy/rungs/qwen3-30b-4-layers.json"
LOAD = "2:15,32:70,2:50"


def steer(
    rungs: Annotated[Path, typer.Option(metavar="FILE", help="the controller's rungs")] = Path(
        RUNGS
    ),
    target: Annotated[
        str, typer.Option(metavar="TIME", help="between two tokens of a chat, a mean")
    ] = "140ms",
    floor: Annotated[str, typer.Option(metavar="SHARE", help="of the router mass")] = "0.7",
    load: Annotated[str, typer.Option(metavar="CHATS:SECONDS,...", help="steps of it")] = LOAD,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="of each, in turns")] = 1,
    line: Annotated[
        Path | None, typer.Option(metavar="FILE", help="the controller's --oea-latency-line")
    ] = None,
    alone: Annotated[bool, typer.Option(help="each rung within the floor by itself, too")] = True,
    layers: Annotated[
        int, typer.Option(min=1, max=48, help="Qwen3-30B-sized, of the server started here")
    ] = 4,
    name: Annotated[str, typer.Option(metavar="NAME", help="of the record")] = "steer",
    seed: Annotated[int, typer.Option(metavar="N", help="of the order")] = 0,
    out: Out = None,
) -> None:
    """A server's controller under steps of load, beside each of its rungs alone: who keeps target
    and floor."""
    from loadtest import load_steps, steered
    from loadtest import steer as measurement
    from oea_server.controller.goal import asked
    from oea_server.lab.bench.served import own_server
    from oea_server.settings import Settings

    with refusing():
        steps = load_steps.steps(load)
        settings = Settings(target_tpot=target, rungs=str(rungs), quality_floor=floor)
        wanted = asked(settings)
        assert wanted is not None
        if wanted.percentile is not None or wanted.goal.nats_floor is not None:
            raise ValueError(
                "spans are judged by a mean time and by mass: --target 150ms --floor 0.7"
            )
        plan = measurement.Plan(
            wanted.rungs, wanted.goal.tpot, wanted.goal.mass_floor, steps, rounds, alone, seed
        )
        chats = max(step.chats for step in steps)
        flags: tuple[str, ...] = (
            "--oea-target-tpot",
            target,
            "--oea-rungs",
            str(rungs),
            "--oea-quality-floor",
            floor,
        )
        if line is not None:
            flags += ("--oea-latency-line", str(line))
        with own_server(layers, chats, *flags) as (server, found):
            record = measurement.measure(server, plan)
    model: dict[str, Any] = {
        "name": found.model,
        "layers": found.layers,
        "bytes_per_expert": found.bytes_per_expert,
    }
    given: dict[str, Any] = {
        "rungs": rungs,
        "target": target,
        "floor": floor,
        "load": load,
        "rounds": rounds,
        "name": name,
    }
    given |= {} if line is None else {"line": line}
    record |= {
        "model": model,
        **provenance(typed("steer", *([] if alone else ["--no-alone"]), **given, seed=seed)),
    }
    title = f"{name}-{found.model}"
    path, kept = keep(record, folder_of(out), title, partial(steered.markdown, name=title))
    steered.draw(kept, path.with_suffix(".png"))
