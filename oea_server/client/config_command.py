"""`oea-server config get|set`: the knobs of a running server."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from oea_server.client import key as keys
from oea_server.oneline import oneline
from oea_server.schema_words import bounds

app = typer.Typer(no_args_is_help=True, help="Read and change the knobs of a running server.")

Url = Annotated[str, typer.Option(envvar="OEA_URL", help="the server")]
Key = Annotated[
    str | None,
    typer.Option(
        help=(
            "its admin key (or API key), if it has one; the process list shows it, so rather"
            " --key-file, or OEA_KEY, or what the server itself reads: OEA_ADMIN_KEY,"
            " OEA_ADMIN_KEY_FILE, OEA_API_KEY, OEA_API_KEY_FILE"
        )
    ),
]
KeyFile = Annotated[Path | None, typer.Option(metavar="FILE", help="a file with that key")]
LOCAL = "http://127.0.0.1:30000"
WIDTH = 76
LONGEST = 1000
"""Characters of a line that says what is wrong, some of them from the server."""


@app.command("get")
def get_(
    knob: Annotated[
        str | None, typer.Argument(help="one knob; all of them, and what runs, if left out")
    ] = None,
    url: Url = LOCAL,
    key: Key = None,
    key_file: KeyFile = None,
) -> None:
    """Print the knobs in effect as JSON, or one of them."""
    config = _ask("GET", url, key, key_file)
    config.pop("schema", None)
    if knob is None:
        print(json.dumps(config, indent=2))
    elif knob in config["settings"]:
        print(_text(config["settings"][knob]))
    else:
        _end(f"{knob}: no such knob; there are {', '.join(config['settings'])}")


@app.command("knobs")
def knobs_(url: Url = LOCAL, key: Key = None, key_file: KeyFile = None) -> None:
    """Print each knob with its value in effect, its bounds, and what it is."""
    config = _ask("GET", url, key, key_file)
    try:
        said = [line for name, knob in _told(config) for line in lines_of(name, knob, config)]
    except (KeyError, TypeError, AttributeError):
        _end(f"{url}: tells nothing of its knobs; is the server older than this command?")
    for line in said:
        print(line)


@app.command("set")
def set_(
    changes: Annotated[
        list[str], typer.Argument(metavar="KNOB=VALUE...", help="policy=vanilla, k0=1:8,16:3, ...")
    ],
    url: Url = LOCAL,
    key: Key = None,
    key_file: KeyFile = None,
) -> None:
    """Change knobs, all of them or none; they last until the server restarts. "none" unsets."""
    asked = {}
    for change in changes:
        name, given, value = change.partition("=")
        if not given:
            _end(f"{change}: not KNOB=VALUE, such as k0=3")
        asked[name.strip().replace("-", "_")] = parsed(value.strip())
    after = _ask("PUT", url, key, key_file, asked)
    for name, (old, new) in after["changes"].items():
        print(oneline(f"{name}: {_text(old)} -> {_text(new)}", LONGEST))
    state = (
        "routing is OEA's" if after["active"] else f"routing is the model's own: {after['reason']}"
    )
    print(f"version {after['version']}; {state}")


def _ask(
    method: str,
    url: str,
    key: str | None,
    key_file: Path | None,
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    import requests

    from oea_server.client.ask import ask

    try:
        found = keys.find(key, key_file, os.environ)
        reply = ask(method, f"{url.rstrip('/')}/oea/config", found, json=body)
    except requests.RequestException as error:
        _end(f"{url}: {error.__class__.__name__}; is the server up? (--url or OEA_URL names it)")
    except (ValueError, OSError) as error:
        _end(str(error))
    try:
        answer: Any = reply.json()
    except ValueError:
        answer = {"error": reply.text[:200]}
    if reply.status_code == requests.codes.unauthorized:
        _end(
            f"{url}: the server wants a key (its admin key to change knobs): --key-file, --key, or"
            " OEA_KEY"
        )
    if reply.status_code == requests.codes.not_found:
        _end(f"{url}: no oea-server answers there; is --url right?")
    if not reply.ok:
        _end(str(answer["error"] if isinstance(answer, dict) and "error" in answer else answer))
    if not isinstance(answer, dict) or "settings" not in answer:
        _end(f"{url}: no oea-server answers there; is --url right?")
    return answer


def _told(config: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    told: Iterable[tuple[str, dict[str, Any]]] = config["schema"]["properties"].items()
    return told


def lines_of(name: str, knob: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """What a server's schema says of one of its knobs: a line of facts, and its description.

    Raises:
        KeyError, TypeError, AttributeError: that is no such schema.
    """
    choices = [f"one of {', '.join(knob['enum'])}"] if "enum" in knob else bounds(knob)
    facts = f" ({'; '.join(choices)})" if choices else ""
    said = knob["description"]
    text = textwrap.wrap(f"{said[:1].upper()}{said[1:]}.", WIDTH, break_on_hyphens=False)
    lines = [f"{name}: {_text(config['settings'][name])}{facts}", *(f"    {line}" for line in text)]
    return [oneline(line, LONGEST) for line in lines]


def parsed(text: str) -> Any:
    """A knob's value as it is typed: a number, none, or a text."""
    if text == "none":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _text(value: Any) -> str:
    return "none" if value is None else str(value)


def _end(problem: str) -> NoReturn:
    typer.echo(f"oea-server: {oneline(problem, LONGEST)}", err=True)
    raise typer.Exit(2)
