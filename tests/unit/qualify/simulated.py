"""Simulated answers: records as a run would write them, and counts of many runs at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oea_server.lab.qualify.statistics import design_effect, score

Record = dict[str, Any]
Counts = NDArray[np.float64]


def record(
    prompts: int = 60,
    *,
    right: float = 0.7,
    discordance: float = 0.1,
    difference: float = 0.0,
    seeds: int = 1,
    rounds: int = 2,
    candidates: Sequence[str] = ("k0=1",),
    margin: float = 0.05,
    seed: int = 0,
) -> Record:
    """A record of vanilla and candidates that truly differ by `difference`, not yet judged."""
    dice = np.random.default_rng(seed)
    lost, won = (discordance - difference) / 2 / right, (discordance + difference) / 2 / (1 - right)
    answers = []
    for task in range(prompts):
        for more in range(seeds):
            by_vanilla = bool(dice.random() < right)
            turned = [draw < (lost if by_vanilla else won) for draw in dice.random(len(candidates))]
            said = {
                "vanilla": by_vanilla,
                **{
                    name: by_vanilla != bool(turn)
                    for name, turn in zip(candidates, turned, strict=True)
                },
            }
            length = int(dice.integers(6, 30))
            answers += [
                answer(arm, task, more, (task + more) % rounds, correct, length)
                for arm, correct in said.items()
            ]
    blocks = [block(arm, number) for number in range(rounds) for arm in ("vanilla", *candidates)]
    return {
        "form": 1,
        "benchmark": "qualify",
        "command": (
            "oea-server qualify --url http://127.0.0.1:30000 --tasks tasks.jsonl --candidate k0=1"
        ),
        "machine": {
            "name": "2-core-x86_64",
            "processor": "a processor",
            "cores": 2,
            "memory_gib": 24,
        },
        "versions": {"python": "3.11.2"},
        "model": {"name": "demo"},
        "plan": {
            "url": "http://127.0.0.1:30000",
            "tasks": {"file": "tasks.jsonl", "sha256": "ab" * 32, "number": prompts},
            "candidates": [{"name": name, "knobs": {}} for name in candidates],
            "margin": margin,
            "confidence": 0.95,
            "max_tokens": 32,
            "temperature": 0.0,
            "concurrency": 16,
            "rounds": rounds,
            "seed": 0,
            "seeds": seeds,
        },
        "answers": answers,
        "blocks": blocks,
    }


def answer(
    arm: str, task: int, seed: int, number: int, correct: bool | None, tokens: int
) -> Record:
    return {
        "arm": arm,
        "round": number,
        "task": task,
        "group": ("copy", "count")[task % 2],
        "check": "exact",
        "seed": seed,
        "correct": correct,
        "tokens": tokens,
        "empty": False,
        "cut": False,
        "broken": False,
        "seconds": 0.02 * tokens,
        "tpot": 0.02,
        "text": f"<b>answer</b> | {task}\nis {correct}",
    }


def block(arm: str, number: int, batch: float | None = 15.5) -> Record:
    vanilla = arm == "vanilla"
    return {
        "arm": arm,
        "round": number,
        "batch": batch,
        "unique": 72.0 if vanilla else 36.0,
        "mass_kept": 1.0 if vanilla else 0.9,
        "tpot": (0.05 if vanilla else 0.04) * (1 + number / 100),
        "tokens_per_s": 300.0 if vanilla else 360.0,
        "seconds": 12.0,
    }


def pairs(
    runs: int,
    prompts: int,
    discordance: float,
    difference: float = 0.0,
    seeds: int = 1,
    together: float = 0.0,
    seed: int = 0,
) -> tuple[Counts, Counts]:
    """Won and lost pairs of each prompt, [runs, prompts].

    Args:
        together: correlation between what a prompt's seeds do; 0 for none, below 1.
    """
    dice = np.random.default_rng(seed)
    shares = np.array(
        [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    )
    if not together:
        drawn = dice.multinomial(seeds, shares, (runs, prompts))
    else:
        # each prompt's own shares, by a Dirichlet distribution of this correlation; gamma's draws
        # may be 0
        own = (
            dice.standard_gamma(np.maximum(shares * (1 / together - 1), 1e-9), (runs, prompts, 3))
            + 1e-300
        )
        drawn = dice.multinomial(seeds, own / own.sum(-1, keepdims=True))
    return drawn[..., 0].astype(float), drawn[..., 1].astype(float)


def scores(
    won: Counts, lost: Counts, seeds: int, difference: float, independent: bool = False
) -> Counts:
    """How far each run's counts lie above a true difference, seeds counted as
    `statistics.difference` does."""
    sizes = np.full_like(won, seeds)
    effect = np.ones(len(won)) if independent else design_effect(won, lost, sizes)
    return score(won.sum(1) / effect, lost.sum(1) / effect, sizes.sum(1) / effect, difference)
