"""What each demo model can do of the tasks for small models, from the records of `oea-server
qualify` on all groups.

    python -m oea_server.lab.qualify.own_tasks --group repeat --group … --number 1400 --seed 7 \\
        --out every.jsonl
    oea-server qualify --model-path DIR --tasks every.jsonl --candidate k0=1 --margin 0.02 \\
        --completions --out DEMO
    python benchmarks/task_groups.py demo=DEMO/qualify.json glm4=GLM4/qualify.json

The record keeps how many answers were right, by model, group and arm; `docs/qualify-tasks.md` shows
it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from oea_server.lab.qualify import compact
from oea_server.lab.qualify.own_groups import GROUPS
from oea_server.lab.qualify.own_tasks import TELLING, Model
from oea_server.lab.qualify.pairs import VANILLA
from oea_server.lab.records import files
from oea_server.lab.records.tables import percent, table

RESULT = Path(__file__).parent / "results" / "2-core-x86_64" / "task-groups.json"
RANGE = (0.3, 0.95)
"""Of vanilla's answers right: below, nothing can be lost; above, a loss is too rare to be seen."""


def counted(record: dict[str, Any]) -> dict[str, Any]:
    """How many answers each arm gave in each group, and how many were right; the decode batch of
    its blocks."""
    arms = [VANILLA, *(each["name"] for each in record["plan"]["candidates"])]
    groups: dict[str, dict[str, list[int]]] = {
        group: {arm: [0, 0] for arm in arms} for group in GROUPS
    }
    for answer in record["answers"]:
        cell = groups[answer["group"]][answer["arm"]]
        cell[0] += bool(answer["correct"])
        cell[1] += 1
    batches = {
        arm: [block["batch"] for block in record["blocks"] if block["arm"] == arm] for arm in arms
    }
    return {
        "groups": groups,
        "batch": {arm: sum(found) / len(found) for arm, found in batches.items()},
        "tasks": record["plan"]["tasks"],
        "machine": record["machine"],
        "versions": record["versions"],
    }


def telling(of: dict[str, Any]) -> list[str]:
    """The groups of a model that can tell: vanilla is right in them often enough, and wrong often
    enough."""
    return [
        group
        for group, arms in of["groups"].items()
        if RANGE[0] <= arms[VANILLA][0] / arms[VANILLA][1] <= RANGE[1]
    ]


def lines(record: dict[str, Any]) -> list[str]:
    """The table of the page: a row a group; in bold where the group is one of the model's."""
    models, header = record["models"], ["group", "what is asked"]
    arms = {model: list(next(iter(of["groups"].values()))) for model, of in models.items()}
    header += [f"{model}, {arm}" for model in models for arm in arms[model]]
    rows = []
    for group, make in GROUPS.items():
        cells = [f"`{group}`", (make.__doc__ or "").rstrip(".")]
        for model, of in models.items():
            shown = [
                percent(of["groups"][group][arm][0] / of["groups"][group][arm][1])
                for arm in arms[model]
            ]
            cells += [f"**{each}**" if group in TELLING[Model(model)] else each for each in shown]
        rows.append(cells)
    return table(header, rows, names=2)


def main(words: list[str]) -> None:
    records = dict(word.split("=", 1) for word in words)
    models = {model: counted(compact.read(Path(path))) for model, path in records.items()}
    kept = files.write(RESULT, {"benchmark": "task-groups", "models": models})
    print("\n".join(lines(kept)))
    for model, of in models.items():
        print(model, "can tell by", ", ".join(telling(of)))


if __name__ == "__main__":
    main(sys.argv[1:])
