"""What an answer is beside vanilla's to the same prompt and seed: the same, or in another script or
form."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from oea_server.lab.qualify import checks
from oea_server.lab.qualify.pairs import VANILLA
from oea_server.lab.qualify.tasks import Task

FEWEST = 8
"""Letters of an answer from which its script can be told."""
LOST = "\N{REPLACEMENT CHARACTER}"


def marked(answers: Sequence[Mapping[str, Any]], tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Answers with `broken`, and with `correct` where vanilla's own answer decides."""
    vanilla = {
        (each["task"], each["seed"]): each["text"] for each in answers if each["arm"] == VANILLA
    }
    found = []
    for each in answers:
        task, beside = tasks[each["task"]], vanilla.get((each["task"], each["seed"]))
        agrees = None if beside is None else each["text"].strip() == beside.strip()
        correct = agrees if task.judged_by == "agree" else each["correct"]
        found.append({**each, "correct": correct, "broken": broken(task, each["text"], beside)})
    return found


def broken(task: Task, text: str, beside: str | None) -> bool:
    """Whether an answer that is not empty is in another script than vanilla's, no text, or not of
    the form asked.

    An empty answer is counted as empty, not as broken.
    """
    if not text.strip():
        return False
    if LOST in text.rstrip(LOST):  # at the end it is a character that was cut in half
        return True
    if task.judged_by == "numeric" and checks.number(text) is None:
        return True
    if task.judged_by == "schema" and not _is_json(text):
        return True
    here, there = script(text), script(beside or "")
    return here is not None and there is not None and here != there


def script(text: str) -> str | None:
    """The script of most letters (LATIN, CYRILLIC, CJK, …); None where there are too few."""
    letters = Counter(unicodedata.name(each, "?").split()[0] for each in text if each.isalpha())
    return letters.most_common(1)[0][0] if letters.total() >= FEWEST else None


def _is_json(text: str) -> bool:
    try:
        checks.document(text)
    except ValueError:
        return False
    return True
