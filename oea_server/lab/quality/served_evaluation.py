"""A live server's quality beside the offline evaluation's, on the same text: what is served is what
was evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from oea_server import shipped
from oea_server.client.server import Server
from oea_server.lab.quality import served, text
from oea_server.lab.quality.arms import Arm
from oea_server.lab.quality.documents import documents
from oea_server.lab.quality.evaluation import Wanted, described, fits, load, routers_of
from oea_server.lab.quality.measure import Judge
from oea_server.lab.quality.routed import routers
from oea_server.lab.records import files, record, stats
from oea_server.lab.records.tables import made_by, table

Record = dict[str, Any]


def evaluate(
    model: str | None,
    source: Path | None,
    wanted: Wanted,
    command: str,
    folder: Path | None,
    name: str,
) -> Record:
    """Serve the model, let it say the text under each policy, do the same offline, and write both.

    Raises:
        ValueError: an arm is no policy of the server, or the text is too short.
        RuntimeError: the server did not start.
    """
    path, source = model or str(shipped.model()), source or shipped.held_out()
    documents(source)  # whatever is wrong with it, before minutes of loading
    shape = routers_of(path)
    fits(wanted, shape)
    knobs = {arm.label: knobs_of(arm) for arm in wanted.arms}
    for arm in wanted.arms:
        if arm.policy is not None and (arm.policy.k_max or 0) > shape.k:
            raise ValueError(
                f"{arm.label}: k_max={arm.policy.k_max} is above {shape.k}, which the server"
                " carries"
            )
    device = torch.device("cpu")
    network, tokenizer = load(path, device)
    found = text.load(source, tokenizer, wanted.length, wanted.sequences, wanted.order, wanted.seed)
    turns = [(batch, arm) for batch in wanted.batches for arm in wanted.arms]
    live = {}
    flags = (
        "--model-path",
        path,
        "--max-running-requests",
        str(max(wanted.batches)),
        *served.FLAGS,
    )
    with Server(*flags) as server:
        for batch, arm in track(turns, description="on the server"):
            live[batch, arm.label] = served.measure(server, found.ids, batch, knobs[arm.label])
    judge = Judge(network, routers(network), found.ids)
    offline = {
        (batch, arm.label): judge.measure(arm, batch)
        for batch, arm in track(turns, description="offline")
    }
    rows = []
    for batch, arm in turns:
        mine, beside = live[batch, arm.label], offline[batch, arm.label]
        rows.append(
            {
                "arm": arm.label,
                "batch": batch,
                "loss": stats.mean(mine.loss, wanted.seed),
                "increase": stats.paired(mine.loss, live[batch, "vanilla"].loss, wanted.seed),
                "unique": mine.unique,
                "tokens_in_a_step": mine.batch,
                "kept": mine.kept,
                "offline_increase": stats.paired(
                    beside.loss, offline[batch, "vanilla"].loss, wanted.seed
                ),
                "offline_unique": stats.mean(beside.unique, wanted.seed),
            }
        )
    result = {
        "benchmark": "eval-served",
        "command": command,
        "machine": record.machine(device),
        "versions": record.versions(),
        **described(model, source, found, wanted),
        "rows": rows,
    }
    folder = folder or record.default_folder(device)
    kept = folder / f"{name}.json"
    page = markdown(files.write(kept, result))
    kept.with_suffix(".md").write_text(page, encoding="utf-8")
    print(f"{page}\nkept: {kept}, and .md beside it")
    return result


def knobs_of(arm: Arm) -> dict[str, object]:
    """An arm as the server's live knobs.

    Raises:
        ValueError: it is none of the server's policies.
    """
    policy = arm.policy
    if policy is None:
        raise ValueError(
            f"{arm.label}: the server has no such policy; it serves vanilla, pruned:K0 and oea:K0"
        )
    if policy.ranks > 1:
        raise ValueError(f"{arm.label}: the server that is started here has one rank")
    if policy.k0 is None:
        return {"policy": policy.name}
    live = ("p", "k_max", "max_rank", "min_batch", "pool", "rank_budget")
    by_batch = {"k0": str(policy.k0), "share": str(policy.share or 0), "mix": str(policy.mix)}
    return {"policy": policy.name, **by_batch, **{name: getattr(policy, name) for name in live}}


def markdown(record: Record) -> str:
    """The page."""
    lines = [
        [
            str(row["batch"]),
            row["arm"],
            f"{row['tokens_in_a_step']:.1f}",
            f"{row['unique']:.1f}",
            f"{row['offline_unique'][0]:.1f}",
            *(
                f"{row[name][0]:+.4f} ({row[name][1]:+.4f} to {row[name][2]:+.4f})"
                for name in ("increase", "offline_increase")
            ),
            f"{row['kept']:.3f}",
        ]
        for row in record["rows"]
    ]
    what = record["text"]
    header = [
        "at once",
        "policy",
        "tokens in a step",
        "T",
        "T offline",
        "increase, nats",
        "offline",
        "mass kept",
    ]
    return "\n".join(
        [
            f"# Quality on a live server: {record['model']['name']}",
            "",
            (
                f"SGLang's own decode steps, made to say {what['sequences']} sequences of"
                f" {what['length']} tokens of {what['name']}; beside it the offline evaluation of"
                " the same. Increase in cross-entropy over vanilla, paired, with bootstrap"
                " intervals over sequences. In the server each sequence's first token comes from"
                f" prefill, which is vanilla, and is not counted. Seed {record['seed']}."
            ),
            "",
            *table(header, lines, 2),
            "",
            *made_by(record),
            "",
        ]
    )
