"""``python -m oea_server.lab.demo.training``: see the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from tokenizers import Tokenizer

from oea_server.lab.demo.build import CONFIG, cached
from oea_server.lab.demo.training import export, loop, sample, tokens
from oea_server.shipped import model as shipped_model


def main(
    steps: Annotated[int, typer.Option(min=1, max=10_000_000, help="of 4096 tokens")] = 5000,
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="corpus and checkpoints; the cache if not given")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="where the model goes; WORK/model if not given")
    ] = None,
    dense: Annotated[bool, typer.Option("--dense", help="the baseline: one FFN as wide as a token's experts")] = False,
    seed: Annotated[int, typer.Option(metavar="N")] = loop.Recipe(0).seed,
) -> None:
    """Train the demo model; an interrupted run goes on where it was, and one that is over writes its files again."""
    work = work or cached("training")
    model = out or work / "model"
    data = tokens.prepare(work, shipped_model() if dense else model)  # nats per token compare within one tokenizer
    recipe = loop.Recipe(steps, dense=dense, seed=seed)
    typer.echo(f"{data.manifest}; {torch.get_num_threads()} threads")
    network = loop.train(CONFIG, data, recipe, work)
    name = "dense" if dense else "moe"
    story = export.story(recipe, data, work / f"{name}-curve.jsonl")
    typer.echo(f"held-out loss {story['held_out']:.3f} nats per token")
    if dense:
        story["moe_held_out"] = export.held_out(shipped_model(), data, recipe.length)
        typer.echo(f"the shipped model's, on the same text: {story['moe_held_out']:.3f}")
    export.keep(story, model.parent / f"{name}-training.json")
    if not dense:
        export.export(network, CONFIG, model)
        sample.write(data, Tokenizer.from_file(str(model / "tokenizer.json")), model.parent / "held_out.jsonl")
        typer.echo(f"the model is in {model}, held-out text and the curve beside it")


typer.run(main)
