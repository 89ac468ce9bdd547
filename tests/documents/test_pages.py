"""What counts as a command of a document, and what its marks say of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documents import checkout, judge, ledger, pages
from tests.documents.pages import Command

PAGE = """\
# Title

Say `make lint` first, then `oea-server config set k0=4` (`oea-server eval` has more), and
`curl -m 30
$SERVER/health`.

    oea-server serve --tp 8 \\
        --ep-size 8     # a comment, with 'a quote
    # only a comment
    curl http://a -d '{"a": "# no comment"}' |
        jq .

    {"prompt": "data"}

    name: yaml

    --tenants "an option alone"

```python
print("no command")
```

```sh
make check
```

- An item
    that goes on, in no block

<!-- not run (2): needs what is not here -->

    make demo
    make fly

<!-- not a command: what it prints -->

    200 prompts: too few

<!-- not run on this page (kubectl): no cluster here -->
| `kubectl get pods -l a=b` | a table |
"""


def read(text: str) -> list[Command]:
    return pages.read(text, "page.md")


def test_commands_are_told_from_data_names_and_output() -> None:
    assert [(each.line, each.text, each.in_text) for each in read(PAGE)] == [
        (3, "oea-server config set k0=4", True),
        (4, "curl -m 30 $SERVER/health", True),
        (7, "oea-server serve --tp 8 --ep-size 8", False),
        (10, """curl http://a -d '{"a": "# no comment"}' | jq .""", False),
        (24, "make check", False),
        (32, "make demo", False),
        (33, "make fly", False),
        (40, "kubectl get pods -l a=b", True),
    ]


def test_a_mark_is_of_the_block_below_it_or_of_a_page() -> None:
    reasons = {each.text: each.reason for each in read(PAGE) if each.reason}
    assert reasons == {
        "make fly": "needs what is not here",
        "kubectl get pods -l a=b": "no cluster here",
    }
    assert [each.reason for each in read("<!-- not run: as it is -->\n\n    a b\n    c\n")] == [
        "as it is",
        "as it is",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<!-- not run: of no block -->\n\nText.\n",
        "<!-- not run (3): of no command -->\n\n    make a\n    make b\n",
        '<!-- not run: of data -->\n\n    {"a": 1}\n',
    ],
)
def test_a_mark_of_nothing_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"a mark|stands over no block"):
        read(text)


def test_a_new_command_is_neither_run_nor_marked() -> None:
    for planted in ("    oea-server fly --high\n", "Type `docker volume rm oea-cache`.\n"):
        (command,) = read(f"Text.\n\n{planted}")
        assert ledger.way(command) is None
        assert command.reason is None


def test_a_marked_command_of_the_ledger_is_seen() -> None:
    (command,) = read("<!-- not run: too long for a test -->\n\n    make test\n")
    assert command.reason is not None
    assert ledger.way(command) is not None


@pytest.mark.parametrize(
    "planted",
    [
        "oea-server config sett policy=vanilla",
        "oea-server eval --policy vanilla",
        ".venv/bin/python -m loadtest ab --nul",
        ".venv/bin/python -m loadtest chaoss",
        "python -m oea_server.lab.qualify.own_tasks --modell demo",
        "python -m oea_server.lab.nowhere --model x",
        "python benchmarks/nowhere.py demo=x",
        "make tset",
        "kubectl rollout undo deployment/oea-server --to-revison=3",
        "kubectl apply -k deploy/k8s/overlays/nowhere",
        "kubectl exec deployment/oea-server -- oea-server config sett policy=vanilla",
        "docker run --rmm oea-server:latest",
        "docker compose -f deploy/compose/compose.yaml up --bild",
        "docker compose -f deploy/compose/nowhere.yaml up",
    ],
)
def test_a_mistyped_command_is_not_well_formed(planted: str, tmp_path: Path) -> None:
    program = planted.replace("docker compose", "docker-compose").split()[0]
    if program in judge.CLIENTS and judge.missing(program):
        pytest.skip(f"needs {program}")
    with pytest.raises(Exception):  # noqa: B017, PT011 - Click's own, or an assertion's
        judge.judge(Command("page.md", 1, planted, False, "planted"), checkout.laid_out(tmp_path))


def test_what_would_be_served_is_asked_with_every_flag() -> None:
    text = "docker run --rm -v a:/b oea-server:latest --model-path Qwen/Qwen3-30B-A3B --tpp 8 &"
    ((card, argv),) = judge.questions(text)
    assert (card, argv[0], argv[2:]) == ("h200", "--model-config", ["--tpp", "8"])
    assert argv[1].endswith("configs/qwen3-30b-a3b.json")
