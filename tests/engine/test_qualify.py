"""`qualify` on the real server: routers that are broken on purpose fail at a stated margin, vanilla
does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oea_server_demo import MODEL
from typer.testing import CliRunner

from oea_server.cli import app
from oea_server.client.server import Server
from oea_server.lab.qualify import own_tasks
from tests.servers import SETTLE, with_plugin

pytestmark = [pytest.mark.nightly, pytest.mark.launch]

MARGIN = 0.02
NUMBER, MANY = 360, 1080
"""Tasks. A floor that is one short costs some five points, which 360 told from two in one run of
two."""
GROUPS = (
    "repeat",
    "copy-list",
    "copy-pairs",
    "close-tag",
    "brackets",
    "brackets-shown",
    "manual-name",
    "page-phrase",
    "page-finish",
)
FLAGS = ("--max-running-requests", "16", "--max-total-tokens", "65536", "--dtype", "float32")


def written(folder: Path, number: int) -> Path:
    made = own_tasks.made(GROUPS, number, 0)
    (folder / "own.jsonl").write_text("".join(json.dumps(each) + "\n" for each in made))
    return folder / "own.jsonl"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("tasks"), NUMBER)


@pytest.fixture(scope="module")
def fault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fault") / "fault"


@pytest.fixture(scope="module")
def server(fault: Path) -> Iterator[Server]:
    with Server(
        "--model-path", str(MODEL), *FLAGS, environment={**with_plugin(), "FAULT_FILE": str(fault)}
    ) as started:
        yield started


def qualified(
    server: Server, tasks: Path, folder: Path, candidate: str, monkeypatch: pytest.MonkeyPatch
) -> Any:
    monkeypatch.setattr("oea_server.client.remote.Remote.settle", SETTLE)
    given = (
        "--url",
        server.url,
        "--tasks",
        str(tasks),
        "--candidate",
        candidate,
        "--margin",
        str(MARGIN),
    )
    done = CliRunner().invoke(
        app, ["qualify", *given, "--completions", "--rounds", "2", "--out", str(folder)]
    )
    print(done.output)
    record = json.loads((folder / "qualify.json").read_text())
    return done.exit_code, record["verdicts"][candidate]


def test_vanilla_is_no_worse_than_vanilla(
    server: Server, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, verdict = qualified(server, tasks, tmp_path / "out", "policy=vanilla", monkeypatch)
    assert (code, verdict["verdict"]) == (0, "no worse")
    assert verdict["cost"]["mass_kept"]["candidate"] == 1.0


@pytest.mark.parametrize("planted", ["weights", "floor", "rows"])
def test_a_router_that_is_broken_is_shown_to_be_worse(
    server: Server,
    tasks: Path,
    fault: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    planted: str,
) -> None:
    fault.write_text(planted)
    try:
        candidate, asked = (
            ("k0=2", written(tmp_path, MANY)) if planted == "floor" else ("k0=7", tasks)
        )
        code, verdict = qualified(server, asked, tmp_path / "out", candidate, monkeypatch)
    finally:
        fault.write_text("")
    assert (code, verdict["verdict"]) == (1, "worse")


def test_a_single_expert_is_shown_to_be_worse(
    server: Server, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, verdict = qualified(server, tasks, tmp_path / "out", "k0=1", monkeypatch)
    assert (code, verdict["verdict"]) == (1, "worse")


def test_pads_in_the_pool_read_more_experts(
    server: Server, tasks: Path, fault: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cost no quality, for tokens have more to fill up with: what they cost is seen in T."""
    reads = {}
    for planted in ("", "pads"):
        fault.write_text(planted)
        try:
            _, verdict = qualified(
                server, tasks, tmp_path / (planted or "whole"), "k0=3", monkeypatch
            )
        finally:
            fault.write_text("")
        reads[planted] = verdict["cost"]["unique"]["ratio"]["value"]
    assert reads["pads"] > 1.1 * reads[""]
