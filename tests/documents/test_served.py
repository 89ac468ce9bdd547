"""Commands that need a server, on servers that other tests have started; each is left as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.documents import checkout, ledger
from tests.documents.asking import asked
from tests.documents.ledger import K3, KEYED, TWO_RANKS, Way
from tests.documents.pages import Command
from tests.documents.test_run import tasks
from tests.servers import Servers


def cases(*kinds: str) -> list[Any]:
    return [
        pytest.param(command, how, id=str(command), marks=pytest.mark.server(how.by))
        for command, how in ledger.run_by(*kinds)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = checkout.laid_out(tmp_path_factory.mktemp("asking"))
    tasks(made / "tasks.jsonl", 16)
    return made


@pytest.mark.parametrize(("command", "how"), cases(K3, KEYED, TWO_RANKS))
def test_a_server_answers_as_the_page_says(
    command: Command, how: Way, servers: Servers, folder: Path
) -> None:
    asked(command, how, servers.get(how.by), folder)
