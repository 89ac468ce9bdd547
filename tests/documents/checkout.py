"""A folder that looks like a checkout, in which a document's command may leave what it makes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.documents.ledger import Way, put
from tests.documents.pages import ROOT, Command

FOREIGN = ("OEA_", "SGLANG_", "TRITON_INTERPRET", "PYTHONDONTWRITEBYTECODE", "PYTEST_")
"""Variables that a reader has not: the tests' own, and what steers servers."""
NOBODY = "http://127.0.0.1:1"
"""A Kubernetes that refuses every connection: so far a command comes only if it is well formed."""
KUBECONFIG = f"""\
apiVersion: v1
kind: Config
current-context: nobody
clusters: [{{name: nobody, cluster: {{server: "{NOBODY}"}}}}]
contexts: [{{name: nobody, context: {{cluster: nobody, user: nobody}}}}]
users: [{{name: nobody, user: {{}}}}]
"""


def laid_out(folder: Path) -> Path:
    """The folder, a git repository, with links to everything that the repository holds."""
    for each in ROOT.iterdir():
        if each.name not in (".git", ".venv", ".pytest_cache", "__pycache__"):
            (folder / each.name).symlink_to(each)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "kubeconfig").write_text(KUBECONFIG)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def environment(folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """A reader's, whose shell finds `oea-server`, and no cluster and no Docker engine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {
        **kept,
        "PATH": f"{Path(sys.prefix) / 'bin'}:{kept['PATH']}",
        "KUBECONFIG": str(folder / "kubeconfig"),
        "DOCKER_HOST": "tcp://127.0.0.1:1",
        "OMP_NUM_THREADS": "1",
        **(more or {}),
    }


def typed(
    command: Command,
    how: Way,
    folder: Path,
    more: Mapping[str, str] | None = None,
    puts: tuple[tuple[str, str], ...] = (),
    timeout: float = 300,
) -> str:
    """Run a command as a shell would; what it printed.

    Raises:
        AssertionError: it failed, or does not print what it should.
    """
    text = put(put(command.text, how.puts), puts)
    print(f"{command}\n  run as: {text}")
    done = subprocess.run(
        ["bash", "-c", f"set -eo pipefail; {text}"],
        cwd=folder,
        env=environment(folder, more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}"
    assert re.search(how.says, done.stdout, re.MULTILINE), f"{command}\n{done.stdout[-3000:]}"
    return done.stdout
