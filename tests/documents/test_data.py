"""What documents show beside commands: what a program prints, and files that a reader writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from oea_server.controller import rungs
from oea_server.lab.qualify import power, tasks
from oea_server.settings import Settings
from tests.documents.pages import ROOT, split


def blocks(page: str, like: str) -> list[str]:
    """The blocks of a page that hold some text, without their indentation."""
    found, _ = split((ROOT / page).read_text(encoding="utf-8"))
    whole = ("\n".join(line.strip() for _, line in block.lines) for block in found)
    return [each for each in whole if like in each]


def test_what_a_run_of_qualify_prints_first_is_what_it_prints() -> None:
    (shown,) = blocks("docs/qualify-statistics.md", "200 prompts")
    assert " ".join(shown.split()) == power.before(200, 0.02)


def test_a_task_file_as_it_is_shown_is_read(tmp_path: Path) -> None:
    (shown,) = blocks("docs/qualify.md", '"check": "exact"')
    lines = re.sub(r",\n", ", ", shown).replace("(one line)", "")
    (tmp_path / "tasks.jsonl").write_text(lines + "\n")
    (tmp_path / "right.py").write_text("")
    read = tasks.read(tmp_path / "tasks.jsonl").tasks
    assert [each.check for each in read] == ["exact", "numeric", "schema", "command", None]


def test_a_file_of_rungs_as_it_is_shown_is_read(tmp_path: Path) -> None:
    (shown,) = blocks("docs/controller.md", '"rungs"')
    (tmp_path / "rungs.json").write_text(shown)
    read = rungs.read(str(tmp_path / "rungs.json"), Settings()).rungs
    assert [each.name for each in read] == ["vanilla", "k0=5"]


def test_bodies_of_requests_are_json() -> None:
    for page in ("docs/wishes.md", "docs/tiers.md"):
        for shown in blocks(page, "custom_params"):
            for line in shown.splitlines():
                body, _ = json.JSONDecoder().raw_decode(line.replace("[...]", "[]"))
                (wish,) = find(body, "oea")
                assert wish.keys() < {"exact", "k0", "tier"}


def find(body: object, name: str) -> list[dict[str, object]]:
    """What lies under a name, however deep."""
    if not isinstance(body, dict):
        return []
    here = [body[name]] if name in body else []
    return here + [each for value in body.values() for each in find(value, name)]
