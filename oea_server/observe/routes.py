"""The HTTP routes under /oea, on SGLang's own app: the page, what was counted, and the knobs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.requests import ClientDisconnect

from oea_server.observe import applying, body, change, page, peer, turns
from oea_server.observe.applying import RefusalError, Schedulers, tag
from oea_server.observe.stats import Stats
from oea_server.oneline import LINE, oneline

logger = logging.getLogger(__name__)

PAGE = "/oea"
CONFIG = "/oea/config"
TAGS: list[str | Enum] = ["oea"]

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of answers in JSON: not to be cached, and for our page alone."""


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
    409: refusal(
        "knobs that clash with the model, with each other or with captured CUDA graphs; nothing"
        " changed"
    ),
    412: refusal("the version that If-Match names is not the one in effect; nothing changed"),
    413: refusal(f"a body above {body.LARGEST} bytes; nothing changed"),
    422: refusal("not a change of knobs; nothing changed"),
    504: refusal(
        "the schedulers did not answer in time; the change may still be applied, or says that it"
        " is not"
    ),
}
CHANGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": change.SCHEMA}},
    }
}


def add(
    app: FastAPI,
    schedulers: Schedulers,
    stats: Stats,
    admin: Callable[[Endpoint], Endpoint],
    turn: turns.Turn | None = None,
) -> None:
    """Add all routes to an app; not by way of an APIRouter, inside which SGLang finds no marks.

    Args:
        admin: marks an endpoint as one that needs the server's admin key, if it has one.
        turn: what a change has to be in; one at a time in this process if not given.
    """
    turn = turn or turns.turns()

    @app.get(PAGE, tags=TAGS, response_class=HTMLResponse)
    async def live_page() -> HTMLResponse:
        """The live page."""
        return HTMLResponse(page.html(), headers=page.headers())

    @app.get(
        "/oea/stats", tags=TAGS, responses=SINCE_REFUSED, openapi_extra={"parameters": [SINCE]}
    )
    async def read_stats(request: Request) -> JSONResponse:
        """What decode steps woke: second by second (those later than `since`, unix seconds), and in
        all."""
        given = request.query_params.get("since", "0")
        try:
            since = float(given)
        except ValueError:
            since = -1.0
        if not 0 <= since < math.inf:
            return answer(
                {"error": f"since={oneline(given, 100)}: not a time in unix seconds"}, 422
            )
        state = stats.state or (await schedulers.states())[0]
        return answer(stats.body(shown(state), since))

    @app.get(CONFIG, tags=TAGS, responses=DOCUMENTED)
    async def read_config() -> JSONResponse:
        """The knobs in effect, those the server started with, and what can be changed."""
        state = (await schedulers.states())[0]
        return answer({**shown(state), "schema": change.SCHEMA}, version=state["version"])

    @app.put(CONFIG, tags=TAGS, responses=REFUSALS, openapi_extra=CHANGE_BODY)
    @admin
    async def change_config(request: Request) -> JSONResponse:
        """Change any of the knobs, on all ranks at once, between two steps. Lasts until the server
        restarts.

        With the ETag of what was read in `If-Match`, it is refused where somebody changed the knobs
        since."""
        client = peer.name(request.scope)
        try:
            # not in turn: a body may come slowly, or never
            asked = change.parse(await body.read(request))
        except body.TooLargeError as error:
            return refuse(client, 413, str(error))
        except ValueError as error:
            return refuse(client, 422, str(error))
        except ClientDisconnect:
            return refuse(client, 422, "the client left before the end of the body")
        try:
            async with turn():
                state, changes = await applying.apply(schedulers, asked, request)
        except RefusalError as why:
            return refuse(client, why.status, str(why))
        stats.learn(state)
        said = [f"{name} {old} -> {new}" for name, (old, new) in changes.items()]
        logger.info("OEA: %s changed %s", client, oneline(", ".join(said) or "nothing", LINE))
        return answer({**shown(state), "changes": changes}, version=state["version"])


def refuse(client: str, status: int, problem: str) -> JSONResponse:
    """One clear line, to the client and to the log."""
    problem = oneline(problem, LINE)
    logger.warning("OEA: refused %s's change: %s", client, problem)
    return answer({"error": problem}, status)


def answer(
    content: Mapping[str, Any], status: int = 200, version: int | None = None
) -> JSONResponse:
    """An answer in JSON; with the version of the knobs as its ETag, for `If-Match`."""
    return JSONResponse(
        content, status, HEADERS | ({} if version is None else {"ETag": tag(version)})
    )


def shown(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state without the schedulers' `refused`, which only `PUT` answers use."""
    return {name: value for name, value in state.items() if name != "refused"}
