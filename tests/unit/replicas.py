"""Data-parallel replicas that are not there, and an app with our routes over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from oea_server.observe import routes
from oea_server.observe.stats import Stats
from tests.unit.counted import state


class Replicas:
    """They take what fits, or refuse."""

    def __init__(self, count: int = 1, refusing: int | None = None) -> None:
        self.now = [{**state(), "refused": ""} for _ in range(count)]
        self.refusing = refusing

    async def states(self) -> list[dict[str, Any]]:
        return self.now

    async def change(self, knobs: Mapping[str, Any]) -> list[bool]:
        for i, each in enumerate(self.now):
            if i == self.refusing:
                each["refused"] = "not me"
            else:
                self.now[i] = {
                    **each,
                    "settings": {**each["settings"], **knobs},
                    "version": each["version"] + 1,
                }
        return [i != self.refusing for i in range(len(self.now))]


def app_of(replicas: Replicas) -> FastAPI:
    app = FastAPI()
    routes.add(app, replicas, Stats(None), lambda endpoint: endpoint)
    return app
