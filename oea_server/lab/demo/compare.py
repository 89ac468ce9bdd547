"""The comparison of `oea-server demo`: the same chats on one server, switched live between vanilla
and OEA."""

from __future__ import annotations

import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from oea_server.client.server import Server
from oea_server.lab.demo.build import CONFIG

QUESTIONS = (
    "What is a mixture of experts?",
    "Why is decoding slow?",
    "What does a router do?",
    "Who wakes an expert?",
)


POLICIES = ("vanilla", "oea")


class Round(NamedTuple):
    """One round of chats: means over its decode steps, read from the server's own metrics."""

    unique_experts: float
    batch: float
    step_seconds: float
    tokens_per_second: float


def compare(chats: int, tokens: int, rounds: int) -> None:
    """Measure both policies and print them side by side."""
    console = Console(highlight=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    measured: dict[str, list[Round]] = {policy: [] for policy in POLICIES}
    answer = ""
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting SGLang (30 to 90 s, mostly imports)", total=None)
        with Server() as server:
            answer = chat(server, 0, 24)
            progress.update(task, completed=1, total=1)
            label = f"rounds of {chats} chats, {tokens} tokens each, vanilla and OEA in turn"
            task = progress.add_task(label, total=None)
            for i in range(-1, rounds):
                # there and back: none is always first
                for policy in POLICIES if i % 2 else POLICIES[::-1]:
                    server.steer(policy=policy)
                    played = play(server, chats, tokens)
                    if i >= 0:  # the first round warms up: first-call costs of every batch size
                        measured[policy].append(played)
            progress.update(task, completed=1, total=1)
    console.print(table(measured, chats))
    console.print(
        "A decode step is as slow as the experts it reads: any token of the batch can wake one."
    )
    console.print(
        f"{platform.machine()} CPU, {CONFIG['num_hidden_layers']} layers of {CONFIG['num_experts']}"
        f" experts, top {CONFIG['num_experts_per_tok']}, trained on manual pages and Python: it"
        " answers such as"
    )
    console.print(f"  {answer!r}", style="dim", markup=False)


def table(measured: dict[str, list[Round]], chats: int) -> Table:
    """Medians over the rounds, vanilla against OEA, with the range in brackets."""
    result = Table(
        title=(
            f"{chats} chats at once, medians of {len(measured['oea'])} rounds (lowest to highest)"
        ),
        title_style="bold",
    )
    for heading, justify in (
        ("", "left"),
        ("vanilla", "right"),
        ("OEA", "right"),
        ("change", "right"),
    ):
        result.add_column(heading, justify=justify)  # type: ignore[arg-type]
    rows = (
        ("experts read per layer (T)", lambda r: r.unique_experts, "{:.1f}"),
        ("decode step, ms", lambda r: r.step_seconds * 1e3, "{:.1f}"),
        ("tokens per second", lambda r: r.tokens_per_second, "{:.0f}"),
        ("tokens in a step", lambda r: r.batch, "{:.1f}"),
    )
    for name, of, form in rows:
        values = {policy: [of(each) for each in rounds] for policy, rounds in measured.items()}
        middle = {policy: statistics.median(each) for policy, each in values.items()}
        cells = [
            f"{form.format(middle[policy])} ({form.format(min(values[policy]))} to"
            f" {form.format(max(values[policy]))})"
            for policy in POLICIES
        ]
        result.add_row(name, *cells, f"{middle['oea'] / middle['vanilla'] - 1:+.0%}")
    return result


def play(server: Server, chats: int, tokens: int) -> Round:
    """One round: all chats at once, each answered in full."""
    before = server.settled_metrics()
    speed = tokens_per_second(server, chats, tokens)
    after = server.settled_metrics()
    delta = {name: after[name] - before.get(name, 0.0) for name in after}

    def mean(name: str) -> float:
        return delta[f"{name}_sum"] / delta[f"{name}_count"]

    return Round(
        mean("oea_unique_experts"),
        mean("oea_decode_batch_size"),
        mean("oea_decode_step_seconds"),
        speed,
    )


def tokens_per_second(server: Server, chats: int, tokens: int) -> float:
    """Play one round and say how fast it went."""
    start = time.perf_counter()
    with ThreadPoolExecutor(chats) as pool:
        list(pool.map(lambda i: chat(server, i, tokens), range(chats)))
    return chats * tokens / (time.perf_counter() - start)


def chat(server: Server, i: int, tokens: int) -> str:
    """One chat of exactly `tokens` tokens, sampled."""
    reply = server.client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": f"{i}: {QUESTIONS[i % len(QUESTIONS)]}"}],
        max_tokens=tokens,
        temperature=1.0,
        seed=i,
        extra_body={"ignore_eos": True},
    )
    return reply.choices[0].message.content or ""
