"""What can be said of a command without running it: whether who would run it takes its words.

`oea-server`, `python -m loadtest` and their like are parsed by their own parsers. `kubectl` and
`docker` are run where nobody listens: what is not well formed they refuse before they find out.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer
from oea_server_demo import MODEL

from oea_server.command_line import model_of
from oea_server.lab.recipes.commands import CONFIGS
from tests.documents import checkout
from tests.documents.pages import ROOT, Command

CLIENTS = ("kubectl", "docker", "docker-compose")
OPERATORS = ("&&", "||", ";", "|", "&", "(", ")", "do", "done", "{", "}")
STANDS_FOR = (
    ("=N", "=3"),
    ("OVERLAY", "deploy/k8s/overlays/cpu-demo"),
    ("CARD", "h200"),
    ("$pod", "pod/oea"),
    ("docker compose", "docker-compose"),
    ("…", "x"),
)
"""In a command that is judged, what is put in place of what a reader fills in."""
MALFORMED = r"unknown (flag|command|short)|flag needs|invalid argument|must build at|^Usage:"
"""How `kubectl` and `docker` refuse words."""
REFUSED = r"refused|Cannot connect|DockerException|resources by argument|POD or TYPE/NAME is"
"""How they say that nobody listens, or that a page leaves out whom a command is for."""
SECRET = '{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "stand-in"}}'
"""What the next command of a pipe is given."""
CONFIG_OF = {
    "deepseek-ai/DeepSeek-V3": "deepseek-v3-fp8",
    "…": "qwen3-30b-a3b",
    "DIR": "qwen3-30b-a3b",
}


def pieces(text: str) -> list[list[str]]:
    """The words of each program that a shell would start, without variables and redirections."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    found: list[list[str]] = [[]]
    for word in lexer:
        if word in OPERATORS:
            found.append([])
        else:
            found[-1].append(word)
    cut = (words[: words.index(">")] if ">" in words else words for words in found)
    whole = (words[1:] if words and re.match(r"\w+=", words[0]) else words for words in cut)
    return [words for words in whole if words and words[0] != "for"]


def parsed(app: typer.Typer, words: Sequence[str]) -> None:
    """Have a command's own parser read its words, and call nothing.

    Raises:
        Exception: Click's, where it does not take them.
    """
    command = typer.main.get_command(app)
    silence(command)
    command.main(args=list(words), prog_name="it", standalone_mode=False)


def silence(command: Any) -> None:
    """Take away what a command and its subcommands would do."""
    command.callback = lambda **_: None
    for each in getattr(command, "commands", {}).values():
        silence(each)


def apps() -> dict[str, typer.Typer]:
    """How a command begins -> whose parser reads the rest."""
    import loadtest.cli
    import oea_server.cli
    from oea_server.lab.qualify import own_tasks

    return {
        "oea-server": oea_server.cli.app,
        "python -m loadtest": loadtest.cli.app,
        "python -m oea_server.lab.qualify.own_tasks": own_tasks.app,
    }


def launch(words: Sequence[str]) -> list[str] | None:
    """The flags that a command would start a server with, or ask `doctor` for."""
    if words[:2] in (["oea-server", "serve"], ["sglang", "serve"], ["oea-server", "doctor"]):
        return list(words[2:])
    image = [number for number, word in enumerate(words) if re.match(r"oea-server:[\w.-]+$", word)]
    if words[:2] == ["docker", "run"] and image:
        flags = list(words[image[0] + 1 :])
        return flags[1:] if flags[:1] == ["doctor"] else [each for each in flags if each != "…"]
    if words[:2] == ["oea-server", "qualify"] and "--" in words:
        named = value(words, "--model-path")
        flags = list(words[words.index("--") + 1 :])
        return flags if named is None else ["--model-path", named, *flags]
    return None


def questions(text: str) -> Iterator[tuple[str, list[str]]]:
    """What `doctor --on` is asked for a command: the card, and the flags for it."""
    for words in map(shortened, pieces(text)):
        flags = launch(words)
        if flags is None:
            continue
        card = value(flags, "--on") or "h200"
        given = value(flags, "--model-config")
        model = model_of(flags) or "demo"
        flags = without(flags, "--on", "--model-config", "--model-path")
        rungs = str(ROOT / "deploy/rungs/qwen3-30b-4-layers.json")
        flags = [rungs if each == "rungs.json" else each for each in flags if each != "…"]
        yield card, ["--model-config", given or config_of(model), *flags]


def config_of(model: str) -> str:
    """The file with a public model's config, or with one that stands for it."""
    if model == "demo":
        return str(MODEL / "config.json")
    name = CONFIG_OF.get(model, model.rpartition("/")[2].lower())
    return str(CONFIGS / f"{name}.json")


def shortened(words: Sequence[str]) -> list[str]:
    """A command without the folder of its program."""
    return [re.sub(r"^\.venv/bin/", "", words[0]), *words[1:]]


def value(flags: Sequence[str], flag: str) -> str | None:
    return flags[flags.index(flag) + 1] if flag in flags else None


def without(flags: Sequence[str], *these: str) -> list[str]:
    found, pairs = [], iter(flags)
    for each in pairs:
        if each in these:
            next(pairs, None)
        else:
            found.append(each)
    return found


def judge(command: Command, folder: Path) -> list[str]:
    """Have each program of a command say that it takes the words; which ones could not be asked.

    Raises:
        AssertionError: one does not take them.
    """
    text = command.text
    for what, instead in STANDS_FOR:
        text = text.replace(what, instead)
    return [
        words[0]
        for words in map(shortened, pieces(text))
        if not judged(words, folder, str(command))
    ]


def judged(words: list[str], folder: Path, where: str) -> bool:
    """Whether there is a judge for one program's words."""
    if words[0] in CLIENTS:
        return refused(words, folder, where)
    if words[0] in ("oea-server", "python"):
        line = " ".join(words)
        for begins, app in apps().items():
            if line.startswith(begins):
                parsed(app, words[len(begins.split()) :])
                return True
    if launch(words) is not None:
        return True  # asked with all others on its card
    if words[:2] == ["python", "-m"]:
        assert find_spec(words[2]) is not None, f"{where}\nno module {words[2]}"
        return True
    if words[0] == "make":
        done = run(["make", "-n", *words[1:]], folder)
        assert done.returncode == 0, f"{where}\n{done.stderr}"
        return True
    files = [
        each for each in words if re.match(r"\w+/", each) and (ROOT / each.split("/")[0]).is_dir()
    ]
    for each in files:
        assert list(ROOT.glob(each.rstrip("/"))), f"{where}\nno {each}"
    return bool(files)


def missing(program: str) -> bool:
    return shutil.which(program) is None


def refused(words: list[str], folder: Path, where: str) -> bool:
    """Whether a client was there to find that it has no server, and nothing wrong before that."""
    if missing(words[0]):
        return False
    said = run(words, folder)
    output = said.stdout + said.stderr
    assert said.returncode == 0 or re.search(REFUSED, output), f"{where}\n{output[-2000:]}"
    assert not re.search(MALFORMED, output, re.MULTILINE), f"{where}\n{output[-2000:]}"
    inner = words[words.index("--") + 1 :] if "--" in words else words[3:]
    if words[1] == "exec":
        judged(inner, folder, where)
    return True


def run(words: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=ROOT,
        env=checkout.environment(folder),
        input=SECRET if words[-2:] == ["-f", "-"] else "",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
