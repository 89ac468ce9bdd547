"""`oea-server config get|set`: the knobs of a running server."""

from __future__ import annotations

import json
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(no_args_is_help=True, help="Read and change the knobs of a running server.")

Url = Annotated[str, typer.Option(envvar="OEA_URL", help="the server")]
Key = Annotated[str | None, typer.Option(envvar="OEA_KEY", help="its admin key (or API key), if it has one")]
LOCAL = "http://127.0.0.1:30000"


@app.command("get")
def get_(
    knob: Annotated[str | None, typer.Argument(help="one knob; all of them, and what runs, if left out")] = None,
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """Print the knobs in effect as JSON, or one of them."""
    config = _ask("GET", url, key)
    if knob is None:
        print(json.dumps(config, indent=2))
    elif knob in config["settings"]:
        print(_text(config["settings"][knob]))
    else:
        _end(f"{knob}: no such knob; there are {', '.join(config['settings'])}")


@app.command("set")
def set_(
    changes: Annotated[list[str], typer.Argument(metavar="KNOB=VALUE...", help="policy=vanilla, k0=1:8,16:3, ...")],
    url: Url = LOCAL,
    key: Key = None,
) -> None:
    """Change knobs, all of them or none; they last until the server restarts. "none" unsets."""
    asked = {}
    for change in changes:
        name, given, value = change.partition("=")
        if not given:
            _end(f"{change}: not KNOB=VALUE")
        asked[name.strip().replace("-", "_")] = parsed(value.strip())
    after = _ask("PUT", url, key, asked)
    for name, (old, new) in after["changes"].items():
        print(f"{name}: {_text(old)} -> {_text(new)}")
    state = "routing is OEA's" if after["active"] else f"routing is the model's own: {after['reason']}"
    print(f"version {after['version']}; {state}")


def _ask(method: str, url: str, key: str | None, body: dict[str, Any] | None = None) -> dict[str, Any]:
    import requests

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        reply = requests.request(method, f"{url.rstrip('/')}/oea/config", json=body, headers=headers, timeout=60)
    except requests.RequestException as error:
        _end(f"{url}: {error.__class__.__name__}; is the server up? (--url or OEA_URL names it)")
    try:
        answer: dict[str, Any] = reply.json()
    except ValueError:
        answer = {"error": reply.text[:200]}
    if reply.status_code == requests.codes.unauthorized:
        _end(f"{url}: the server wants a key (its admin key to change knobs): --key, or OEA_KEY")
    if reply.status_code == requests.codes.not_found:
        _end(f"{url}: no oea-server answers there")
    if not reply.ok:
        _end(str(answer.get("error", answer)))
    return answer


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
    typer.echo(f"oea-server: {problem}", err=True)
    raise typer.Exit(2)
