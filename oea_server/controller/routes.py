"""`/oea/controller`: the controller's state and reasons, and its switch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect

from oea_server.controller.keeper import Keeper, RefusedError
from oea_server.observe import body, peer
from oea_server.observe.routes import REFUSALS, TAGS, answer, refuse

PATH = "/oea/controller"


class Switch(BaseModel):
    """The body of a change."""

    model_config = ConfigDict(extra="forbid", strict=True)

    on: bool


DOCUMENTED = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": Switch.model_json_schema()}},
    }
}


def add(app: FastAPI, keeper: Keeper, admin: Callable[[Any], Any]) -> None:
    """Add the controller's routes to an app.

    Args:
        admin: marks an endpoint as one that needs the server's admin key, if it has one.
    """

    @app.get(PATH, tags=TAGS)
    async def read_controller() -> JSONResponse:
        """Which rung serves, and why."""
        return answer(keeper.state())

    @app.put(PATH, tags=TAGS, responses=REFUSALS, openapi_extra=DOCUMENTED)
    @admin
    async def switch_controller(request: Request) -> JSONResponse:
        """`{"on": false}` gives back the knobs of the start; `{"on": true}` steers from the safe
        rung."""
        client = peer.name(request.scope)
        try:
            asked = Switch.model_validate_json(await body.read(request))
        except body.TooLargeError as error:
            return refuse(client, 413, str(error))
        except (ValidationError, ClientDisconnect):
            return refuse(
                client, 422, 'not a switch of the controller: {"on": true} or {"on": false}'
            )
        try:
            await asyncio.to_thread(keeper.switch, asked.on)
        except RefusedError as why:
            return refuse(client, 409, str(why))
        return answer(keeper.state())
