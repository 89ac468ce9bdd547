"""A run's folder: what was asked for, and every block that is done; the same run goes on from
there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oea_server.oneline import oneline

PLAN = "plan.json"
ANSWERS = "answers.jsonl"
BLOCK = "block"


class KeepingError(ValueError):
    """One clear line: the folder, and what in it stands in the way."""


class Kept:
    """The answers and blocks of one plan: an answer a line of `answers.jsonl`, and each block ends
    with one of its own.

    Args:
        identity: what makes a run the same: tasks, candidates, model, the server's knobs. Plain
            types.

    Raises:
        KeepingError: the folder holds another run, or something else.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder, self.answers, self.blocks = (
            folder,
            list[dict[str, Any]](),
            list[dict[str, Any]](),
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / PLAN).exists():
                self._same(identity)
                self._read()
            elif any(folder.iterdir()):
                raise KeepingError(
                    f"--out={oneline(str(folder))}: holds something else already; name an empty"
                    " folder"
                )
            else:
                (folder / PLAN).write_text(json.dumps(identity, indent=1) + "\n")
        except OSError as error:
            raise KeepingError(f"--out={oneline(str(folder))}: {error.strerror}") from None

    def has(self, arm: str, number: int) -> bool:
        """Whether an arm's block of a round is done."""
        return any((each["arm"], each["round"]) == (arm, number) for each in self.blocks)

    def add(self, block: dict[str, Any], answers: Sequence[dict[str, Any]]) -> None:
        """Keep a block that is done."""
        lines = "".join(
            json.dumps(each, ensure_ascii=False) + "\n" for each in [*answers, {BLOCK: block}]
        )
        with (self.folder / ANSWERS).open("a", encoding="utf-8") as file:
            file.write(lines)
        self.answers += answers
        self.blocks.append(block)

    def _same(self, identity: Mapping[str, Any]) -> None:
        where = f"--out={oneline(str(self.folder))}"
        try:
            before = json.loads((self.folder / PLAN).read_text())
            differ = [
                name for name in {**before, **identity} if before.get(name) != identity.get(name)
            ]
        except (ValueError, TypeError, AttributeError):
            raise KeepingError(f"{where}: its {PLAN} is no plan of this command") from None
        if differ:
            name = differ[0]
            was, now = (oneline(json.dumps(each.get(name)), 150) for each in (before, identity))
            raise KeepingError(
                f"{where}: holds another run: {name} was {was}, and is {now}; name another folder"
            )

    def _read(self) -> None:
        """Everything up to the last block that is done; what comes after it was interrupted, and is
        taken away."""
        path = self.folder / ANSWERS
        if not path.exists():
            return
        content = path.read_bytes()
        read = good = 0
        open_: list[dict[str, Any]] = []
        for line in content.splitlines(keepends=True):
            read += len(line)
            try:
                open_.append(json.loads(line))
            except ValueError:
                break
            if BLOCK in open_[-1] and line.endswith(b"\n"):
                self.blocks.append(open_.pop()[BLOCK])
                self.answers += open_
                good, open_ = read, []
        if good < len(content):
            with path.open("r+b") as file:
                file.truncate(good)
