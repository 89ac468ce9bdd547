"""Commands that need no server, run as they stand, but for what the ledger puts in."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oea_server.lab.qualify import own_tasks
from tests.documents import checkout, ledger, pages
from tests.documents.ledger import HERE, NIGHTLY, TOGETHER, Way
from tests.documents.pages import ROOT, Command

TOOLS = ("kubectl", "promtool", "openssl")


def cases(by: str) -> list[Any]:
    return [pytest.param(command, how, id=str(command)) for command, how in ledger.run_by(by)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all of a run, as a reader has one."""
    return checkout.laid_out(tmp_path_factory.mktemp("checkout"))


@pytest.mark.parametrize(("command", "how"), cases(HERE))
def test_a_command_does_what_its_page_says(command: Command, how: Way, folder: Path) -> None:
    for tool in TOOLS:
        if tool in ledger.put(command.text, how.puts).split() and shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    checkout.typed(command, how, folder)


def test_commands_of_the_laboratory_do_what_their_pages_say(folder: Path) -> None:
    found = list(ledger.run_by(TOGETHER))
    asked = [shlex.split(ledger.put(command.text, how.puts))[1:] for command, how in found]
    for number, words in enumerate(asked):
        if "--out" in words and words[-1] in ("eval", "found"):
            words[-1] += str(number)  # or the second would go on from what the first kept
        print(f"{found[number][0]}\n  run as: {shlex.join(['oea-server', *words])}")
    done = subprocess.run(
        [sys.executable, "-m", "tests.documents.together"],
        input=json.dumps(asked),
        cwd=folder,
        env=checkout.environment(folder),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for (command, how), (code, said) in zip(
        found, json.loads(done.stdout.splitlines()[-1]), strict=True
    ):
        assert code == 0, f"{command}\n{said[-3000:]}"
        assert re.search(how.says, said), f"{command}\n{said[-3000:]}"


@pytest.mark.nightly
@pytest.mark.parametrize(("command", "how"), cases(NIGHTLY))
def test_a_command_that_starts_a_server_does_what_its_page_says(
    command: Command, how: Way, tmp_path: Path
) -> None:
    checkout.typed(command, how, checkout.laid_out(tmp_path), timeout=1200)


def tasks(path: Path, number: int) -> None:
    """A task file, smaller than the pages'."""
    made = own_tasks.made(own_tasks.TELLING[own_tasks.Model.DEMO], number, 0)
    path.write_text("".join(json.dumps(each) + "\n" for each in made))


def test_the_python_of_a_page_runs() -> None:
    import torch

    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    known: dict[str, Any] = {"router_logits": torch.randn(4, 16)}
    exec(source, known)
    said = [(tuple(known[name].shape), known[name].dtype) for name in ("weights", "ids", "pool")]
    assert said == [((4, 8), torch.float32), ((4, 8), torch.int32), ((16,), torch.bool)]
    assert "# [B, k] float32, [B, k] int32, [N] bool" in source


def test_pages_have_no_other_python() -> None:
    texts = {str(page.relative_to(ROOT)): page.read_text() for page in pages.pages()}
    assert [name for name, text in texts.items() if "```python" in text] == ["docs/serving.md"]
