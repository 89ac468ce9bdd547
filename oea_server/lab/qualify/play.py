"""Vanilla and candidates by turns on one server: each arm once a round, with the same questions, in
an order drawn at random."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from oea_server.lab.qualify import asking, checks, stopping
from oea_server.lab.qualify.asking import Answer, Manner, Question
from oea_server.lab.qualify.candidates import Candidate, arms
from oea_server.lab.qualify.keeping import Kept
from oea_server.lab.qualify.target import Target, TargetError, put_back, settled
from oea_server.lab.qualify.tasks import Task, TaskError

FULL = 2
"""Times over that a block has as many questions as are asked at once: below that it is never full
for long."""
WARM_UP = 8
"""Tokens of each arm's first answers, which are thrown away: what is compiled at first use is
compiled then."""


@dataclass(frozen=True)
class Run:
    """What is played.

    Args:
        concurrency: answers at once.
        rounds: at most; fewer where blocks would not be full.
        seeds: answers of each arm to each task.
        seed: of the order, and the first one of the answers.
    """

    tasks: Sequence[Task]
    candidates: Sequence[Candidate]
    manner: Manner
    concurrency: int
    rounds: int
    seeds: int
    seed: int

    def parts(self) -> list[list[Question]]:
        """The questions of each round: all tasks and seeds, mixed, each once."""
        every = [
            Question(place, task, self.seed + more)
            for place, task in enumerate(self.tasks)
            for more in range(self.seeds)
        ]
        random.Random(f"questions/{self.seed}").shuffle(every)
        rounds = max(1, min(self.rounds, len(every) // (FULL * self.concurrency)))
        return [every[number::rounds] for number in range(rounds)]

    def order(self, number: int, names: Sequence[str]) -> list[str]:
        """The arms of a round, as they follow each other."""
        return random.Random(f"order/{self.seed}/{number}").sample(list(names), len(names))


def play(target: Target, run: Run, kept: Kept, so_far: Callable[[], list[str]]) -> None:
    """Play every block that is not yet kept. The server gets its knobs back, whatever happens.

    Args:
        so_far: lines to say after each round but the last.

    Raises:
        AskingError, TargetError, TaskError: an answer did not come, somebody else turned the knobs,
        or a task's own
            program cannot tell; what is kept stays.
        requests.RequestException: the server does not answer.
    """
    knobs, parts = arms(run.candidates, target.settings), run.parts()
    turns = [
        (number, arm) for number in range(len(parts)) for arm in run.order(number, list(knobs))
    ]
    left = [turn for turn in turns if not kept.has(turn[1], turn[0])]
    if not left:
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(soft_wrap=True)
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task("answers", total=sum(len(parts[number]) for number, _ in left))
            _warm_up(target, run, knobs, parts[left[0][0]])
            primed, before = -1, dict[str, float]()
            for i, (number, arm) in enumerate(left):
                stopping.check()
                version = _switch(target, knobs[arm])
                if number != primed:
                    _ask(
                        target,
                        run.manner._replace(max_tokens=1),
                        _short(parts[number], 1),
                        run.concurrency,
                    )
                    primed, before = number, settled(target.server)
                start = time.perf_counter()
                found = _ask(
                    target,
                    run.manner,
                    parts[number],
                    run.concurrency,
                    lambda: progress.advance(bar),
                )
                seconds = time.perf_counter() - start
                after = settled(target.server)
                figures, before = figures_of(found, before, after, seconds), after
                if target.server.config().get("version") != version:
                    raise TargetError(
                        f"--url={target.server.url}: somebody else turned its knobs during the run"
                    )
                kept.add(
                    {"arm": arm, "round": number, **figures},
                    _rows(arm, number, parts[number], found),
                )
                line = (
                    f"block {i + 1} of {len(left)}: round {number + 1}, {arm}:"
                    f" {_said(figures, len(found))}"
                )
                last_of_round = i + 1 < len(left) and left[i + 1][0] != number
                for each in [line, *(so_far() if last_of_round else [])]:
                    progress.console.print(each, markup=False, highlight=False)
    finally:
        put_back(target, run.candidates)


def _switch(target: Target, knobs: Mapping[str, Any]) -> Any:
    try:
        target.server.steer(**knobs)
    except RuntimeError as error:
        raise TargetError(str(error)) from None
    return target.server.config().get("version")


def _warm_up(
    target: Target, run: Run, knobs: Mapping[str, Mapping[str, Any]], part: Sequence[Question]
) -> None:
    for each in knobs.values():
        _switch(target, each)
        _ask(target, run.manner, _short(part[: run.concurrency], WARM_UP), run.concurrency)


def _short(questions: Sequence[Question], tokens: int) -> list[Question]:
    return [
        each._replace(task=each.task.model_copy(update={"max_tokens": tokens}))
        for each in questions
    ]


def _ask(
    target: Target,
    manner: Manner,
    questions: Sequence[Question],
    at_once: int,
    done: Callable[[], None] = lambda: None,
) -> list[Answer]:
    return asking.answers(target.server.url, target.server.key, manner, questions, at_once, done)


def _rows(
    arm: str, number: int, questions: Sequence[Question], found: Sequence[Answer]
) -> list[dict[str, Any]]:
    rows = []
    for question, answer in zip(questions, found, strict=True):
        try:
            correct = checks.correct(question.task, answer.text)
        except TaskError as error:
            raise TaskError(f"task {question.place + 1}: {error}") from None
        rows.append(
            {
                "arm": arm,
                "round": number,
                "task": question.place,
                "group": question.task.group,
                "check": question.task.judged_by,
                "seed": question.seed,
                "correct": correct,
                "tokens": answer.tokens,
                "empty": not answer.text.strip(),
                "cut": answer.cut,
                "seconds": round(answer.seconds, 4),
                "tpot": answer.tpot,
                "text": answer.text,
            }
        )
    return rows


def figures_of(
    found: Sequence[Answer], before: Mapping[str, float], after: Mapping[str, float], seconds: float
) -> dict[str, Any]:
    """A block's own numbers: the first three by what the server's counters gained, None where
    nothing was decoded."""

    def gained(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    def mean(top: str, bottom: str) -> float | None:
        return gained(top) / gained(bottom) if gained(bottom) else None

    timed = [(each.tpot, each.tokens - 1) for each in found if each.tpot is not None]
    return {
        "batch": mean("oea_decode_batch_size_sum", "oea_decode_batch_size_count"),
        "unique": mean("oea_unique_experts_sum", "oea_unique_experts_count"),
        "mass_kept": mean("oea_kept_router_mass_total", "oea_routed_tokens_total"),
        "tpot": (
            sum(tpot * steps for tpot, steps in timed) / sum(steps for _, steps in timed)
            if timed
            else None
        ),
        "tokens_per_s": sum(each.tokens for each in found) / seconds,
        "seconds": seconds,
    }


def _said(figures: Mapping[str, Any], answers: int) -> str:
    def number(name: str, digits: int, scale: float = 1.0) -> str:
        return "none" if figures[name] is None else f"{scale * figures[name]:.{digits}f}"

    return (
        f"{answers} answers in {figures['seconds']:.1f} s, {number('batch', 1)} in a decode step, T"
        f" {number('unique', 1)}, {number('tpot', 1, 1e3)} ms a token, {number('tokens_per_s', 0)}"
        " tokens/s"
    )
