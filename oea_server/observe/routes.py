"""The HTTP routes under /oea, on SGLang's own app: the page, what was counted, and the knobs."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.requests import ClientDisconnect

from oea_server import settings
from oea_server.observe import body, change, page, peer
from oea_server.observe.stats import Stats
from oea_server.oneline import oneline
from oea_server.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

PAGE = "/oea"
CONFIG = "/oea/config"
TAGS: list[str | Enum] = ["oea"]

LONGEST = 600
"""Characters of what a refusal or a line of the log says: a value can have thousands."""

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""Of answers in JSON: true for a moment, and for nobody's page but ours."""


class Schedulers(Protocol):
    """The way to the scheduler processes."""

    async def states(self) -> list[dict[str, Any]]:
        """`oea_server.engine.control.state_of` of each data-parallel replica, and "refused", its last refusal."""

    async def change(self, knobs: Mapping[str, Any]) -> list[bool]:
        """Change knobs on all ranks between two steps. Whether each replica took all of them; else it took none."""


Endpoint = Callable[..., Any]


def refusal(description: str) -> dict[str, Any]:
    """An answer of the OpenAPI description with one line of text."""
    schema = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


DOCUMENTED: dict[int | str, dict[str, Any]] = {401: refusal("no key, or a wrong one")}
SINCE = {"name": "since", "in": "query", "schema": {"type": "number", "minimum": 0, "default": 0}}
SINCE_REFUSED: dict[int | str, dict[str, Any]] = {**DOCUMENTED, 422: refusal("`since` is no time")}
REFUSALS: dict[int | str, dict[str, Any]] = {
    **DOCUMENTED,
    409: refusal("knobs that clash with the model, with each other or with captured CUDA graphs; nothing changed"),
    413: refusal(f"a body above {body.LARGEST} bytes; nothing changed"),
    422: refusal("not a change of knobs; nothing changed"),
}
CHANGE_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": change.Change.model_json_schema()}}}
}


def add(app: FastAPI, schedulers: Schedulers, stats: Stats, admin: Callable[[Endpoint], Endpoint]) -> None:
    """Add all of them to an app; not by way of an APIRouter, inside which SGLang finds no marks.

    Args:
        admin: marks an endpoint as one that needs the server's admin key, if it has one.
    """
    turn = asyncio.Lock()

    @app.get(PAGE, tags=TAGS, response_class=HTMLResponse)
    async def live_page() -> HTMLResponse:
        """The live page."""
        return HTMLResponse(page.html(), headers=page.headers())

    @app.get("/oea/stats", tags=TAGS, responses=SINCE_REFUSED, openapi_extra={"parameters": [SINCE]})
    async def read_stats(request: Request) -> JSONResponse:
        """What decode steps woke: second by second (those later than `since`, unix seconds), and in all."""
        given = request.query_params.get("since", "0")
        try:
            since = float(given)
        except ValueError:
            since = -1.0
        if not 0 <= since < math.inf:
            return answer({"error": f"since={oneline(given, 100)}: not a time in unix seconds"}, 422)
        state = stats.state or (await schedulers.states())[0]
        return answer(stats.body(shown(state), since))

    @app.get(CONFIG, tags=TAGS, responses=DOCUMENTED)
    async def read_config() -> JSONResponse:
        """The knobs in effect, those the server started with, and what can be changed."""
        return answer(shown((await schedulers.states())[0]))

    @app.put(CONFIG, tags=TAGS, responses=REFUSALS, openapi_extra=CHANGE_BODY)
    @admin
    async def change_config(request: Request) -> JSONResponse:
        """Change any of the knobs, on all ranks at once, between two steps. Lasts until the server restarts."""
        client = peer.name(request.scope)
        try:
            asked = change.parse(await body.read(request))  # not in turn: a body may come slowly, or never
        except body.TooLargeError as error:
            return refuse(client, 413, str(error))
        except ValueError as error:
            return refuse(client, 422, str(error))
        except ClientDisconnect:
            return refuse(client, 422, "the client left before the end of the body")
        async with turn:
            before = (await schedulers.states())[0]
            if problem := clash(before, asked):
                return refuse(client, 409, problem)
            taken = await schedulers.change(asked)
            if not all(taken):
                states = await schedulers.states()
                why = [state["refused"] for state, took in zip(states, taken, strict=True) if not took]
                if any(taken):
                    await schedulers.change(before["settings"])  # replicas change together or not at all
                return refuse(client, 409, why[0])
            after = (await schedulers.states())[0]
        changes = difference(before["settings"], after["settings"])
        said = [f"{name} {old} -> {new}" for name, (old, new) in changes.items()]
        logger.info("OEA: %s changed %s", client, oneline(", ".join(said) or "nothing", LONGEST))
        return answer({**shown(after), "changes": changes})


def clash(state: Mapping[str, Any], asked: Mapping[str, Any]) -> str | None:
    """Why the knobs cannot be changed so, None if they can: what every scheduler will find as well."""
    model = state["model"]
    if "policy" in asked or not state["policies"]:
        policy = asked.get("policy", state["settings"]["policy"])
        if policy not in state["policies"]:
            return f"policy={policy}: {state['fixed']}"
    try:
        after = settings.changed(Settings(**state["settings"]), asked)
        after.check(k=model["top_k"], num_experts=model["num_experts"])
    except (SettingsError, ValueError) as error:
        return str(error)
    return None


def refuse(client: str, status: int, problem: str) -> JSONResponse:
    """One clear line, to the client and to the log."""
    problem = oneline(problem, LONGEST)
    logger.warning("OEA: refused %s's change: %s", client, problem)
    return answer({"error": problem}, status)


def answer(content: Mapping[str, Any], status: int = 200) -> JSONResponse:
    """An answer in JSON."""
    return JSONResponse(content, status, HEADERS)


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Knobs that differ: name -> [old, new]."""
    return {name: [before[name], after[name]] for name in after if before[name] != after[name]}


def shown(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state without what only concerns us."""
    return {name: value for name, value in state.items() if name != "refused"}
