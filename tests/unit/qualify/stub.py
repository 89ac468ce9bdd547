"""A server whose answers a test decides, arm by arm; it streams, counts and is steered as the load
tests' stub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from tests.loadtest.stub import EXPERTS, MASS, Stub, event, refusal

STEPS = 5
"""Decode steps that an answer counts."""
AT_ONCE = 8

Answers = Callable[[dict[str, Any], str], str]
"""From the knobs and the prompt to the answer."""


def echo(settings: dict[str, Any], prompt: str) -> str:
    """The prompt's last word, in vanilla and otherwise."""
    return prompt.rsplit(maxsplit=1)[-1]


class Answering(Stub):
    """Says what `says` returns, a word a token.

    Args:
        says: as `Answers`.
    """

    def __init__(self, says: Answers = echo, key: str = "") -> None:
        self.says = says
        self.active = True
        self.version = 0
        self.slow = 0.0
        """Seconds until an answer begins."""
        self.why = "stop"
        self.broken_at: int | None = None
        """After so many answers all others are refused."""
        self.served = 0
        self.served_name = "stub"
        super().__init__(key=key)
        self.settings = {
            "policy": "oea",
            "k0": "auto",
            "share": "auto",
            "min_batch": 2,
            "default_tier": None,
        }
        self.remote.settle = 0.01

    def _app(self) -> FastAPI:
        app = FastAPI()
        changing = super()._app()

        @app.get("/v1/models")
        async def models() -> dict[str, Any]:
            return {"data": [{"id": self.served_name}]}

        @app.get("/model_info")
        async def model_info() -> dict[str, Any]:
            return {"model_path": "/models/stub-model"}

        @app.get("/oea/config")
        async def config() -> dict[str, Any]:
            state = {"active": self.active, "reason": "it was planted", "version": self.version}
            return {"settings": self.settings, "model": {"top_k": 8}, **state}

        @app.put("/oea/config")
        async def change(request: Request) -> Response:
            knobs = await request.json()
            if knobs.get("k0") == 20:
                return JSONResponse({"error": "k0=20 is above the model's top-k 8"}, 409)
            self.steered.append(knobs)
            self.settings |= knobs
            return JSONResponse({"settings": self.settings})

        @app.post("/v1/completions")
        async def complete(request: Request) -> Response:
            return self._answered(await request.json(), completion=True)

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            return self._answered(await request.json(), completion=False)

        app.mount("/", changing)
        return app

    def _answered(self, body: dict[str, Any], completion: bool) -> Response:
        self.bodies.append(body)
        self.served += 1
        if self.broken_at is not None and self.served > self.broken_at:
            return refusal(500, "planted: the server is broken")
        prompt = body["prompt"] if completion else body["messages"][-1]["content"]
        return StreamingResponse(
            self._said(body, prompt, completion), media_type="text/event-stream"
        )

    async def _said(
        self, body: dict[str, Any], prompt: str, completion: bool
    ) -> AsyncIterator[str]:
        policy = self.settings["policy"]
        await asyncio.sleep(self.slow)
        words = self.says(self.settings, prompt).split(" ")[: body["max_tokens"]]
        for place, word in enumerate(words):
            await asyncio.sleep(0.0005)
            text = word if place == 0 else " " + word
            said: dict[str, Any] = {"text": text} if completion else {"delta": {"content": text}}
            yield event({"id": "1", "choices": [{"index": 0, "finish_reason": None, **said}]})
        end: dict[str, Any] = {"text": ""} if completion else {"delta": {}}
        yield event({"id": "1", "choices": [{"index": 0, "finish_reason": self.why, **end}]})
        counted = {
            "completion_tokens": len(words) + 1,
            "prompt_tokens": 1,
            "total_tokens": len(words) + 2,
        }
        yield event({"id": "1", "choices": [], "usage": counted})
        yield "data: [DONE]\n\n"
        self.counted["experts"] += STEPS * EXPERTS[policy]
        self.counted["observations"] += STEPS
        self.counted["mass"] += STEPS * AT_ONCE * MASS[policy]
        self.counted["tokens"] += STEPS * AT_ONCE
