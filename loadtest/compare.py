"""The same load by Locust and by SGLang's own client, by turns: whether their figures agree."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import track

from loadtest import workload
from loadtest.ab import orders
from oea_server.client.ask import ask
from oea_server.lab.records.tables import made_by, table

ROOT = Path(__file__).parents[1]
BAR = 0.05
"""How far medians of the rounds may be apart."""
TIMEOUT = 900
MS = 1e3


class Figure(NamedTuple):
    """A figure that both report.

    Args:
        ours: where in Locust's figures, dotted; seconds are turned into ms.
        theirs: in SGLang's result.
    """

    name: str
    ours: str
    theirs: str
    factor: float


FIGURES = (
    *(
        Figure(f"{time} {statistic}, ms", f"{time}_s.{ours}", f"{statistic}_{theirs}_ms", MS)
        for time, theirs in (
            ("ttft", "ttft"),
            ("tpot", "tpot"),
            ("itl", "itl"),
            ("e2e", "e2e_latency"),
        )
        for statistic, ours in (("mean", "mean"), ("median", "p50"), ("p95", "p95"))
    ),
    Figure("output tokens/s", "output_tokens_per_s", "output_throughput", 1.0),
    Figure("requests/s", "requests_per_s", "request_throughput", 1.0),
)
"""Tails of a few requests are shown, not judged: they differ between two runs of the same
client."""
JUDGED = tuple(each.name for each in FIGURES if "p95" not in each.name)


class Plan(NamedTuple):
    """The load: so many requests, `users` at once, of fixed lengths in tokens."""

    rounds: int
    users: int
    requests: int
    prompt: int
    output: int
    seed: int


def compare(url: str, plan: Plan) -> dict[str, Any]:
    """Run both, round by round; the first round warms up.

    Raises:
        RuntimeError: one of them failed; with the end of what it said.
    """
    rounds: list[dict[str, dict[str, float]]] = []
    order = [
        ("ours", "theirs"),
        *(
            ("ours", "theirs") if a == "a" else ("theirs", "ours")
            for a, _ in orders(plan.rounds, plan.seed)
        ),
    ]
    runs = {"ours": locust, "theirs": bench_serving}
    for number, names in enumerate(track(order, description="rounds")):
        found = {}
        for name in names:
            ask("POST", f"{url}/flush_cache").raise_for_status()  # both ask the same
            found[name] = runs[name](url, plan, plan.seed + number)
        if number:
            rounds.append(found)
    return {"benchmark": "compare", "plan": plan._asdict(), "rounds": rounds, "rows": rows(rounds)}


def rows(rounds: list[dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """Figure by figure: medians of the rounds and their ratio, and how far each client is from
    itself."""
    found = []
    for name in (each.name for each in FIGURES):
        ours, theirs = ([one[who][name] for one in rounds] for who in ("ours", "theirs"))
        ratio = statistics.median(ours) / statistics.median(theirs)
        found.append(
            {
                "name": name,
                "ours": statistics.median(ours),
                "theirs": statistics.median(theirs),
                "ratio": ratio,
                "ours_spread": [min(ours), max(ours)],
                "theirs_spread": [min(theirs), max(theirs)],
                "judged": name in JUDGED,
                "agrees": abs(ratio - 1) <= BAR,
            }
        )
    return found


def locust(url: str, plan: Plan, seed: int) -> dict[str, float]:
    """One run of our locustfile."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "figures.json"
        command = [
            *(
                sys.executable,
                "-m",
                "locust",
                "-f",
                str(ROOT / "loadtest" / "locustfile.py"),
                "--headless",
            ),
            *(
                "--host",
                url,
                "-u",
                str(plan.users),
                "-r",
                str(plan.users),
                "--requests",
                str(plan.requests),
            ),
            *(
                "--tenants",
                tenant(plan),
                "--seed",
                str(seed),
                "--temperature",
                "0",
                "--figures",
                str(kept),
            ),
        ]
        _run(command)
        figures = json.loads(kept.read_text())
    return {each.name: _at(figures, each.ours) * each.factor for each in FIGURES}


def bench_serving(url: str, plan: Plan, seed: int) -> dict[str, float]:
    """One run of SGLang's client, with the requests that Locust's users send."""
    with tempfile.TemporaryDirectory() as folder:
        asked, kept = Path(folder) / "requests.jsonl", Path(folder) / "result.jsonl"
        asked.write_text("".join(json.dumps(each) + "\n" for each in bodies(plan, seed)))
        command = [
            *(
                sys.executable,
                "-m",
                "sglang.benchmark.serving",
                "--backend",
                "sglang-oai-chat",
                "--base-url",
                url,
            ),
            *(
                "--dataset-name",
                "openai",
                "--dataset-path",
                str(asked),
                "--num-prompts",
                str(plan.requests),
            ),
            *(
                "--max-concurrency",
                str(plan.users),
                "--output-file",
                str(kept),
                "--warmup-requests",
                "0",
            ),
            "--disable-tqdm",
        ]
        _run(command)
        result = json.loads(kept.read_text().splitlines()[-1])
    if result["completed"] != plan.requests:
        raise RuntimeError(
            f"{plan.requests - result['completed']} requests of SGLang's client failed"
        )
    return {each.name: float(result[each.theirs]) for each in FIGURES}


def tenant(plan: Plan) -> str:
    return f"compare prompt=fixed:{plan.prompt} output=fixed:{plan.output}"


def bodies(plan: Plan, seed: int) -> list[dict[str, Any]]:
    """What Locust's users ask, turn by turn."""
    asker = workload.parse(tenant(plan))
    return [
        next(
            workload.conversation(asker, seed, f"0.{number % plan.users}", number // plan.users)
        ).body("default", 0.0)
        for number in range(plan.requests)
    ]


def markdown(record: dict[str, Any]) -> str:
    """The record as a page."""
    plan = record["plan"]
    lines = [
        [
            row["name"],
            f"{row['ours']:.4g}",
            "{:.4g} to {:.4g}".format(*row["ours_spread"]),
            f"{row['theirs']:.4g}",
            "{:.4g} to {:.4g}".format(*row["theirs_spread"]),
            f"{row['ratio']:.3f}",
            ("yes" if row["agrees"] else "no") if row["judged"] else "–",
        ]
        for row in record["rows"]
    ]
    return "\n".join(
        [
            f"# Locust beside SGLang's own client: {record['machine']['name']}",
            "",
            (
                f"The same {plan['requests']} chats, {plan['users']} at once, prompts of"
                f" {plan['prompt']} tokens and answers of {plan['output']}, by turns,"
                f" {plan['rounds']} rounds of each; medians of the rounds, lowest to highest."
                f" Agreed: within {BAR:.0%}."
            ),
            "",
            *table(
                [
                    "figure",
                    "Locust",
                    "rounds",
                    "sglang.benchmark.serving",
                    "rounds",
                    "ratio",
                    "agreed",
                ],
                lines,
            ),
            "",
            *made_by(record),
            "",
        ]
    )


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])} …: {(done.stdout + done.stderr)[-2000:]}")


def _at(figures: dict[str, Any], path: str) -> float:
    first, _, second = path.partition(".")
    return float(figures[first][second] if second else figures[first])
