"""The server that is asked: one that runs, or one of our own; and what of it makes a run
impossible."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests

from oea_server import shipped
from oea_server.client.ask import ask
from oea_server.client.remote import Remote
from oea_server.client.server import Server
from oea_server.lab.qualify.candidates import OPTION, SERVES_VANILLA, Candidate, arms, as_found
from oea_server.lab.qualify.pairs import VANILLA
from oea_server.oneline import oneline

PATIENCE = 60.0
"""Seconds in which a server's counters have to come to rest."""
OURS = "oea-server: "
"""How the lines of a launch that is refused begin."""
LINE = 400
"""Characters of the server's own words in a refusal."""


class TargetError(ValueError):
    """One clear line: what about the server stands in the way."""


class Target(NamedTuple):
    """A server that can be switched between all arms.

    Args:
        settings: its knobs, as they were found.
        model: what it serves.
        name: by which requests name that.
    """

    server: Remote
    settings: dict[str, Any]
    model: dict[str, Any]
    name: str


@contextmanager
def own_server(model: str | None, concurrency: int, flags: Sequence[str]) -> Iterator[Server]:
    """A server on this machine, of the demo model if none is named, with room for as many answers
    at once.

    Raises:
        TargetError: it did not start.
        ValueError: there is no model to serve.
    """
    name = Path(model).name if model else shipped.model().name
    # `serve` has flags of its own for the demo model
    named = ("--model-path", model) if model else ()
    room = () if "--max-running-requests" in flags else ("--max-running-requests", str(concurrency))
    print(f"starting a server of {name} (1 to 2 minutes, mostly imports)", flush=True)
    server = Server(*named, *room, *flags)
    try:
        server.start()
    except RuntimeError as error:
        lines = str(error).splitlines()
        ours = [line for line in lines if line.startswith(OURS)]
        said = ours[-1].removeprefix(OURS) if ours else lines[-1]
        raise TargetError(
            f"the server did not start (its log: {server.log}): {oneline(said, LINE)}"
        ) from None
    try:
        yield server
    finally:
        server.stop()


def examine(server: Remote) -> Target:
    """Ask a server what it is.

    Raises:
        TargetError: nothing answers, it is not ours, its controller is on, or it is busy with
        others.
    """
    url = f"--url={server.url}"
    try:
        config = server.config()
        settings = dict(config["settings"])
        served = str(_get(server, "/v1/models")["data"][0]["id"])
        path = str(_get(server, "/model_info").get("model_path", served))
        controller = ask("GET", f"{server.url}/oea/controller", server.key)
    except requests.HTTPError as error:
        status = error.response.status_code
        if status == requests.codes.unauthorized:
            raise TargetError(
                f"{url}: the server wants its admin key: --key-file, or OEA_KEY"
            ) from None
        raise TargetError(
            f"{url}: no oea-server answers there, it says {status} to"
            f" {urlsplit(error.response.url).path}"
        ) from None
    except requests.RequestException as error:
        raise TargetError(f"{url}: no server answers there: {type(error).__name__}") from None
    except (KeyError, IndexError, TypeError, AttributeError, requests.JSONDecodeError):
        raise TargetError(
            f"{url}: no oea-server answers there: what answers has no knobs or no model"
        ) from None
    if controller.ok and controller.json().get("mode") == "on":
        remedy = 'switch it off: PUT /oea/controller {"on": false}'
        raise TargetError(f"{url}: its controller is on, and would turn the same knobs; {remedy}")
    settled(server)
    # records tell nobody's folders
    shown = Path(served).name if Path(served).is_absolute() else served
    return Target(
        server,
        settings,
        {"name": Path(path).name, "served": shown, **config.get("model", {})},
        served,
    )


def rehearse(target: Target, candidates: Sequence[Candidate]) -> None:
    """Switch through all arms once, and back: what the server refuses, it refuses before anything
    is asked.

    Raises:
        TargetError: it refuses one, with its reason, or would not route by it.
    """
    names = {each.name for each in candidates}
    for each in candidates:
        for knob in each.knobs:
            if knob not in target.settings:
                raise TargetError(f"{OPTION}={each.name}: the server has no knob {knob}")
    try:
        for name, knobs in arms(candidates, target.settings).items():
            said = (
                f"{OPTION}={name}"
                if name in names
                else f"{VANILLA}, which all candidates are compared with"
            )
            try:
                target.server.steer(**knobs)
            except RuntimeError as error:
                raise TargetError(f"{said}: {oneline(str(error), LINE)}") from None
            state = target.server.config()
            if knobs["policy"] not in SERVES_VANILLA and not state.get("active", True):
                raise TargetError(
                    f"{said}: the server would not route by it:"
                    f" {oneline(str(state['reason']), LINE)}"
                )
    finally:
        put_back(target, candidates)


def put_back(target: Target, candidates: Sequence[Candidate]) -> None:
    """Give the server its knobs back; where that fails, say how to."""
    knobs = as_found(candidates, target.settings)
    try:
        target.server.steer(**knobs)
    except (RuntimeError, requests.RequestException) as error:
        typed = " ".join(
            f"{name}={'none' if value is None else value}" for name, value in knobs.items()
        )
        print(
            f"oea-server: the knobs could not be put back: {oneline(str(error), LINE)}", flush=True
        )
        print(
            f"oea-server: do it by: oea-server config set {typed} --url {target.server.url}",
            flush=True,
        )


def settled(server: Remote) -> dict[str, float]:
    """The server's counters once all that was decoded is in them.

    Raises:
        TargetError: they do not come to rest, for somebody else is served.
    """
    deadline = time.monotonic() + PATIENCE
    before: dict[str, float] = {}
    while True:
        now = server.metrics()
        if now == before:
            return now
        if time.monotonic() > deadline:
            raise TargetError(
                f"--url={server.url}: others are served there, its counters do not come to rest"
                f" within {PATIENCE:.0f} s; what is measured would be theirs, too: take a server of"
                " your own"
            )
        before = now
        time.sleep(server.settle)


def _get(server: Remote, path: str) -> Any:
    reply = ask("GET", f"{server.url}{path}", server.key)
    reply.raise_for_status()
    return reply.json()
