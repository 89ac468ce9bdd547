"""Tasks for `qualify` that the demo models can do: python -m oea_server.lab.qualify.own_tasks --out
FILE.jsonl.

Made from text that neither model was trained on. How well each model does each group:
docs/qualify-tasks.md."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from oea_server import shipped
from oea_server.lab.qualify.elsewhere import asked
from oea_server.lab.qualify.own_groups import GROUPS, LEAST_TOKENS, WORD, Task, Text

MOST = 100_000
Group = StrEnum("Group", {name: name for name in GROUPS})  # type: ignore[misc]


class Model(StrEnum):
    """Whose tasks: the groups that this model does in 0.3 to 0.95 of all cases, vanilla and
    greedy."""

    DEMO = "demo"
    GLM4 = "glm4"


TELLING: dict[Model, tuple[str, ...]] = {
    Model.DEMO: (
        "repeat",
        "copy-list",
        "copy-pairs",
        "close-tag",
        "brackets",
        "brackets-shown",
        "manual-name",
        "assign",
        "page-phrase",
        "page-finish",
    ),
    Model.GLM4: (
        "repeat",
        "copy-list",
        "copy-pairs",
        "brackets",
        "brackets-shown",
        "manual-name",
        "page-phrase",
        "page-finish",
    ),
}


def text() -> Text:
    """The held-out pages, and the words in them that are long enough, by the tokenizer that both
    models share.

    Raises:
        shipped.NotInstalledError
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(shipped.model() / "tokenizer.json"))

    def tokens(of: str) -> list[str]:
        return [tokenizer.decode([each]) for each in tokenizer.encode(of).ids]

    lines = shipped.held_out().read_text(encoding="utf-8").split("\n")
    pages = [str(json.loads(line)["text"]) for line in lines if line]
    found = sorted({word for page in pages for word in WORD.findall(page)})
    return Text(pages, [word for word in found if len(tokens(f" {word}")) >= LEAST_TOKENS], tokens)


def made(groups: Sequence[str], number: int, seed: int) -> list[Task]:
    """So many different tasks, the groups in turn; the same for the same groups and seed."""
    material, dice = text(), {group: random.Random(f"{seed} {group}") for group in groups}
    tasks: dict[str, Task] = {}
    while len(tasks) < number:
        for group in groups:
            task = GROUPS[group](material, dice[group]) | {"group": group}
            tasks.setdefault(task["prompt"], task)
    return list(tasks.values())[:number]


app = typer.Typer(add_completion=False)


@app.command()
def main(
    out: Annotated[Path, typer.Option(metavar="FILE", help="the task file; what is in it is lost")],
    model: Annotated[Model, typer.Option(help="whose tasks")] = Model.DEMO,
    number: Annotated[
        int, typer.Option(min=1, max=MOST, help="of tasks, all groups together")
    ] = 400,
    seed: Annotated[int, typer.Option(metavar="N")] = 0,
    group: Annotated[
        list[Group] | None,
        typer.Option(help="other groups than those that tell, one or more times"),
    ] = None,
    reasoning_gym: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="tasks of this dataset of reasoning-gym instead"),
    ] = None,
    gym_python: Annotated[
        str,
        typer.Option(metavar="PATH", help="a Python that has reasoning-gym; this one if not given"),
    ] = sys.executable,
    lm_eval: Annotated[
        str | None,
        typer.Option(
            metavar="TASK", help="a generative task of lm-eval instead, whose data is at hand"
        ),
    ] = None,
    include_path: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="where lm-eval finds a task of your own, as its --include_path"
        ),
    ] = None,
    lm_eval_python: Annotated[
        str, typer.Option(metavar="PATH", help="a Python that has lm-eval; this one if not given")
    ] = sys.executable,
) -> None:
    """Write a task file for `oea-server qualify --completions`."""
    if (reasoning_gym or lm_eval) is not None and group:
        raise typer.BadParameter("only our own tasks have groups", param_hint="--group")
    if reasoning_gym is not None and lm_eval is not None:
        raise typer.BadParameter(
            "--reasoning-gym is given as well: one of them", param_hint="--lm-eval"
        )
    try:
        if reasoning_gym is not None:
            words = [reasoning_gym, str(number), str(seed)]
            tasks = asked(
                "gym.py", f"--reasoning-gym={reasoning_gym}", ("--gym-python", gym_python), words
            )
        elif lm_eval is not None:
            words = [lm_eval, str(number), *([] if include_path is None else [str(include_path)])]
            tasks = asked(
                "lm_tasks.py", f"--lm-eval={lm_eval}", ("--lm-eval-python", lm_eval_python), words
            )
        else:
            tasks = made(group or TELLING[model], number, seed)
        out.write_text("".join(json.dumps(task) + "\n" for task in tasks), encoding="utf-8")
    except (ValueError, OSError) as error:
        typer.echo(f"oea-server: {error}", err=True)
        raise typer.Exit(2) from None
    groups = Counter(task["group"] for task in tasks)
    typer.echo(
        f"{out}: {len(tasks)} tasks:"
        f" {', '.join(f'{each} {count}' for each, count in groups.items())}"
    )


if __name__ == "__main__":
    app()
