"""``python -m oea_server.lab.demo.training``: see the package."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from tokenizers import Tokenizer

from oea_server import shipped
from oea_server.lab.demo import build, glm4_moe
from oea_server.lab.demo.training import export, loop, sample, tokens
from oea_server.lab.records import files


class Kind(StrEnum):
    """Which architecture; the first is the one that is shipped, and brings the tokenizer."""

    QWEN3_MOE = "qwen3_moe"
    GLM4_MOE = "glm4_moe"


CONFIGS: Mapping[Kind, Mapping[str, Any]] = {
    Kind.QWEN3_MOE: build.CONFIG,
    Kind.GLM4_MOE: glm4_moe.CONFIG,
}


def main(
    model: Annotated[Kind, typer.Option(help="its architecture")] = Kind.QWEN3_MOE,
    steps: Annotated[int, typer.Option(min=1, max=10_000_000, help="of 4096 tokens")] = 5000,
    work: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="corpus and checkpoints; the cache if not given"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="where the model goes; WORK/model if not given"),
    ] = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="the baseline: one FFN as wide as a token's experts")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N")] = loop.Recipe(0).seed,
) -> None:
    """Train a demo model; an interrupted run goes on where it was, and one that is over writes its
    files again."""
    if dense and model is not Kind.QWEN3_MOE:
        raise typer.BadParameter(f"the baseline is {Kind.QWEN3_MOE}'s", param_hint="--dense")
    config, first = CONFIGS[model], model is Kind.QWEN3_MOE and not dense
    work = work or build.cached("training" if model is Kind.QWEN3_MOE else f"training-{model}")
    out = out or work / "model"
    # nats per token compare within one tokenizer
    data = tokens.prepare(work, out if first else shipped.model())
    recipe = loop.Recipe(
        steps, dense=dense, seed=seed, balance=config.get("router_aux_loss_coef", 0.0)
    )
    typer.echo(f"{data.manifest}; {torch.get_num_threads()} threads")
    network = loop.train(config, data, recipe, work)
    name = "dense" if dense else "moe"
    story = export.story(recipe, data, work / f"{name}-curve.jsonl")
    typer.echo(f"held-out loss {story['held_out']:.3f} nats per token")
    if not first:
        story["moe_held_out"] = export.held_out(shipped.model(), data, recipe.length)
        typer.echo(f"the shipped model's, on the same text: {story['moe_held_out']:.3f}")
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write(out.parent / f"{name}-training.json", story)
    if not dense:
        export.export(network, config, out)
        for tokenizer in () if first else ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(shipped.model() / tokenizer, out / tokenizer)
        sample.write(
            data, Tokenizer.from_file(str(out / "tokenizer.json")), out.parent / "held_out.jsonl"
        )
        typer.echo(f"the model is in {out}, held-out text and the curve beside it")


typer.run(main)
