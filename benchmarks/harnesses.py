"""Two harnesses that share no code give one server the same accuracy: `oea-server qualify`, and
lm-eval's completions.

    python3 -m venv .venv-lm-eval && .venv-lm-eval/bin/pip install 'lm-eval[api]'
    python benchmarks/harnesses.py --url http://127.0.0.1:30000 --model demo

The tasks are copying tasks whose answer is a whole line, judged by lm-eval's own exact_match: same
prompts, same limits, greedy, as many at once. qualify switches the server between vanilla and the
candidate by itself; for lm-eval it is switched here. They agree where the two accuracies differ by
no more than 1.96 of their standard errors together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from math import sqrt
from pathlib import Path
from typing import Annotated, Any

import requests
import torch
import typer

from oea_server.client import key
from oea_server.client.remote import Remote
from oea_server.lab.qualify import compact
from oea_server.lab.qualify.own_groups import LINE, STOP
from oea_server.lab.qualify.own_tasks import Model, made
from oea_server.lab.qualify.pairs import VANILLA
from oea_server.lab.records import files
from oea_server.lab.records import record as records
from oea_server.lab.records.tables import made_by, table

GROUPS = ("repeat", "copy-list", "copy-pairs")
TASK = "qualify_own"
Z = 1.96
LIMIT = 1800.0
"""Seconds for one harness."""
YAML = """task: {task}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {file}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
generation_kwargs: {{until: {stop}, max_gen_toks: {tokens}, temperature: 0, do_sample: false}}
filter_list:
  - name: stripped
    filter: [{{function: remove_whitespace}}, {{function: take_first}}]
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


def qualified(url: str, tasks: Path, knobs: str, at_once: int, folder: Path) -> dict[str, Any]:
    """The record of `oea-server qualify`; its verdict is not asked about."""
    words = [
        "--url",
        url,
        "--tasks",
        str(tasks),
        "--candidate",
        knobs,
        "--margin",
        "0.05",
        "--completions",
    ]
    words += ["--concurrency", str(at_once), "--rounds", "2", "--out", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "oea_server", "qualify", *words],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if not (folder / "qualify.json").exists():
        raise RuntimeError(f"qualify ended with {done.returncode}: {done.stderr[-500:]}")
    return compact.read(folder / "qualify.json")


def judged_by_lm_eval(
    program: Path, url: str, at_once: int, folder: Path
) -> tuple[dict[str, Any], list[bool]]:
    """lm-eval's accuracy with its standard error, and whether each task was right, in the file's
    order."""
    options = f"model=demo,base_url={url}/v1/completions,num_concurrent={at_once},max_retries=1"
    options += ",tokenizer_backend=None,tokenized_requests=False"
    words = [
        "--model",
        "local-completions",
        "--model_args",
        options,
        "--tasks",
        TASK,
        "--include_path",
        str(folder),
    ]
    words += ["--output_path", str(folder / "out"), "--log_samples"]
    caches = {name: str(folder / "cache") for name in ("HF_HOME", "HF_DATASETS_CACHE")}
    done = subprocess.run(
        [str(program), *words],
        env={**os.environ, **caches, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"lm-eval ended with {done.returncode}: {done.stderr[-500:]}")
    (results,) = (folder / "out").rglob("results_*.json")
    (samples,) = (folder / "out").rglob("samples_*.jsonl")
    found = json.loads(results.read_text())
    of = found["results"][TASK]
    each = sorted(
        (json.loads(line) for line in samples.read_text().splitlines()),
        key=lambda one: one["doc_id"],
    )
    said = {"accuracy": of["exact_match,stripped"], "error": of["exact_match_stderr,stripped"]}
    return said | {"version": found["lm_eval_version"]}, [one["exact_match"] == 1 for one in each]


def decoded(server: Remote) -> tuple[float, float]:
    """Requests in all decode steps so far, and steps."""
    now = server.settled_metrics()
    return now["oea_decode_batch_size_sum"], now["oea_decode_batch_size_count"]


def compared(
    arm: str, ours: list[bool], theirs: list[bool], said: dict[str, Any], batch: float
) -> dict[str, Any]:
    """One arm under both harnesses."""
    mine = sum(ours) / len(ours)
    error = sqrt(mine * (1 - mine) / len(ours))
    both = sqrt(error**2 + said["error"] ** 2)
    return {
        "arm": arm,
        "qualify": mine,
        "qualify_error": error,
        "lm_eval": said["accuracy"],
        "lm_eval_error": said["error"],
        "lm_eval_batch": batch,
        "agree": abs(mine - said["accuracy"]) <= Z * both,
        "same_task_by_task": sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(ours),
    }


def page(record: dict[str, Any]) -> str:
    """The record in Markdown."""
    rows = [
        [
            row["arm"],
            f"{row['qualify']:.3f} ± {row['qualify_error']:.3f}",
            f"{row['lm_eval']:.3f} ± {row['lm_eval_error']:.3f}",
            f"{100 * row['same_task_by_task']:.1f} %",
            f"{row['qualify_batch']:.1f}",
            f"{row['lm_eval_batch']:.1f}",
            "yes" if row["agree"] else "no",
        ]
        for row in record["rows"]
    ]
    header = [
        "arm",
        "qualify",
        "lm-eval",
        "same task by task",
        "batch, qualify",
        "batch, lm-eval",
        "agree",
    ]
    lines = [
        f"# Two harnesses on one server: {record['machine']['name']}",
        "",
        (
            f"{record['tasks']} copying tasks ({', '.join(record['groups'])}) on {record['model']},"
            f" {record['at_once']} at once, greedy, raw completions; `oea-server qualify` and"
            f" lm-eval {record['lm_eval']} (local-completions, its own exact_match). Accuracy ±"
            " standard error; batch: requests in a decode step, as the server counted."
        ),
        "",
        *table(header, rows),
        "",
        *made_by(record, record["seed"]),
        "",
    ]
    return "\n".join(lines)


def main(
    url: Annotated[str, typer.Option(help="a running oea-server, with a demo model")],
    model: Annotated[Model, typer.Option(help="which")] = Model.DEMO,
    lm_eval: Annotated[Path, typer.Option(help="its command")] = Path(".venv-lm-eval/bin/lm_eval"),
    number: Annotated[int, typer.Option(min=30, help="of tasks")] = 200,
    at_once: Annotated[int, typer.Option(min=2, help="of requests")] = 16,
    candidate: Annotated[str, typer.Option(help="what is served beside vanilla")] = "k0=1",
    seed: Annotated[int, typer.Option(help="of the tasks")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="where the record goes")] = None,
) -> None:
    """Ask both, compare, keep; exits with 1 where they do not agree."""
    folder = Path(tempfile.mkdtemp(prefix="oea-harnesses-"))
    server = Remote(url.rstrip("/"), key.find(None, None, os.environ))
    try:
        before = server.config()["settings"]
    except requests.RequestException as error:
        raise typer.BadParameter(
            f"no oea-server answers: {type(error).__name__}", param_hint="--url"
        ) from None
    if not lm_eval.exists():
        raise typer.BadParameter(
            f"{lm_eval} is not there: pip install 'lm-eval[api]'", param_hint="--lm-eval"
        )
    tasks = made(GROUPS, number, seed)
    path = folder / "tasks.jsonl"
    path.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    ours = qualified(server.url, path, candidate, at_once, folder / "qualify")
    knobs = dict(part.split("=", 1) for part in candidate.split(","))
    rows, version = [], ""
    for arm, steer in ((VANILLA, {"policy": VANILLA}), (candidate, {"policy": "oea", **knobs})):
        here = folder / arm.replace("=", "-")
        here.mkdir()
        (here / "task.yaml").write_text(
            YAML.format(task=TASK, file=path, stop=json.dumps(STOP), tokens=LINE)
        )
        try:
            server.steer(**steer)
            start = decoded(server)
            said, theirs = judged_by_lm_eval(lm_eval, server.url, at_once, here)
            end = decoded(server)
        finally:
            server.steer(**{name: before[name] for name in {"policy", *knobs}})
        mine = {each["task"]: each["correct"] for each in ours["answers"] if each["arm"] == arm}
        batches = [block["batch"] for block in ours["blocks"] if block["arm"] == arm]
        row = compared(
            arm,
            [mine[i] for i in sorted(mine)],
            theirs,
            said,
            (end[0] - start[0]) / (end[1] - start[1]),
        )
        rows.append(row | {"qualify_batch": sum(batches) / len(batches)})
        version = said["version"]
    record = {
        "benchmark": "harnesses",
        "command": (
            f"python benchmarks/harnesses.py --url URL --model {model} --number {number} --at-once"
            f" {at_once} --candidate {candidate} --seed {seed}"
        ),
        "machine": records.machine(torch.device("cpu")),
        "versions": records.versions(),
        "seed": seed,
        "model": model,
        "groups": list(GROUPS),
        "tasks": number,
        "at_once": at_once,
        "lm_eval": version,
        "rows": rows,
    }
    out = out or records.default_folder(torch.device("cpu"))
    record = files.write(out / f"harnesses-{model}.json", record)
    (out / f"harnesses-{model}.md").write_text(page(record))
    print(page(record))
    raise typer.Exit(0 if all(row["agree"] for row in rows) else 1)


if __name__ == "__main__":
    typer.run(main)
