"""A server that streams chats by a script, counts as an oea-server does, and can be steered. No
model, no SGLang."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from oea_server.client.remote import Remote

EXPERTS = {"vanilla": 80.0, "oea": 40.0, "shadow": 80.0}
MASS = {"vanilla": 1.0, "oea": 0.875, "shadow": 1.0}
CONTEXT = 4096
"""Words of a prompt."""
STEPS = 4
"""Reported per chat."""


class Stub:
    """Serves in a thread until it is stopped.

    The model's name says what becomes of a request: `refuse` is a 429, `cut` ends without [DONE],
    `fail` reports an error in the stream, all others are answered.

    Args:
        gap: seconds between two tokens, by policy.
        texts: what chats say instead of t0, t1, ..., again and again.
        key: what every request needs, if anything.
    """

    def __init__(self, gap: dict[str, float] | None = None, key: str = "") -> None:
        self.gap = gap or {"vanilla": 0.002, "oea": 0.002}
        self.key = key
        self.settings: dict[str, Any] = {"policy": "oea", "k0": "auto", "min_batch": 2}
        self.controlled = False
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.began: list[float] = []
        self.left = 0
        self.texts: list[str] = []
        self.steered: list[dict[str, Any]] = []
        self.counted = {"experts": 0.0, "observations": 0.0, "mass": 0.0, "tokens": 0.0}
        self._server = uvicorn.Server(
            uvicorn.Config(self._app(), host="127.0.0.1", port=0, log_level="error", lifespan="off")
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.remote = Remote(self.url, key or None)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            try:
                body = await request.json()
            except ValueError:
                return refusal(400, "not JSON")
            authorization = request.headers.get("authorization", "")
            if self.key and authorization != f"Bearer {self.key}":
                return JSONResponse({"error": "Unauthorized"}, 401)
            if problem := problem_of(body):
                return refusal(400, problem)
            self.began.append(time.monotonic())
            self.bodies.append(body)
            self.keys.append(authorization.removeprefix("Bearer "))
            if body["model"] == "refuse":
                return refusal(429, "too many")
            if not body.get("stream"):
                return JSONResponse(whole(body))
            return StreamingResponse(self._stream(request, body), media_type="text/event-stream")

        @app.get("/health")
        async def health() -> Response:
            return Response()

        @app.get("/oea/config")
        async def config() -> dict[str, Any]:
            return {
                "settings": self.settings,
                "started_with": self.settings,
                "policies": list(EXPERTS),
            }

        @app.get("/oea/controller")
        async def controller() -> dict[str, Any]:
            mode, rung = ("on", self.settings["policy"]) if self.controlled else ("off", None)
            return {"mode": mode, "rung": rung, "saturated": False, "reason": f"it is {mode}"}

        @app.put("/oea/controller")
        async def switch(request: Request) -> Response:
            self.controlled = (await request.json())["on"]
            self.settings["policy"] = "oea" if self.controlled else self.settings["policy"]
            return JSONResponse(await controller())

        @app.put("/oea/config")
        async def change(request: Request) -> Response:
            knobs = await request.json()
            if unknown := set(knobs) - set(self.settings):
                return JSONResponse({"error": f"{unknown}: no such knob"}, 422)
            self.steered.append(knobs)
            self.settings |= knobs
            return JSONResponse({"settings": self.settings})

        @app.get("/metrics")
        async def metrics() -> PlainTextResponse:
            counted = self.counted
            return PlainTextResponse(
                "# TYPE oea_unique_experts histogram\noea_unique_experts_sum"
                f" {counted['experts']}\noea_unique_experts_count {counted['observations']}\n# TYPE"
                " oea_kept_router_mass_total counter\noea_kept_router_mass_total"
                f" {counted['mass']}\n# TYPE oea_routed_tokens_total"
                f" counter\noea_routed_tokens_total {counted['tokens']}\n# TYPE"
                " oea_decode_batch_size histogram\noea_decode_batch_size_sum"
                f" {counted['tokens']}\noea_decode_batch_size_count {counted['observations']}\n"
            )

        return app

    async def _stream(self, request: Request, body: dict[str, Any]) -> AsyncIterator[str]:
        policy, tokens = self.settings["policy"], body["max_tokens"]
        finished = False
        try:
            yield event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
            for number in range(tokens):
                await asyncio.sleep(self.gap[policy])
                text = self.texts[number % len(self.texts)] if self.texts else f"t{number} "
                choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
                yield event({"choices": [choice], **counted_so_far(body, number + 1)})
                if body["model"] == "fail" and number == tokens // 2:
                    yield event({"error": {"message": "out of memory", "type": "server_error"}})
                    return
            if body["model"] == "cut":
                return
            yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
            yield event({"choices": [], "usage": usage(body)})
            yield "data: [DONE]\n\n"
            finished = True
        finally:
            self.left += not finished
            self.counted["experts"] += STEPS * EXPERTS[policy]
            self.counted["observations"] += STEPS
            self.counted["mass"] += STEPS * MASS[policy]
            self.counted["tokens"] += STEPS


def problem_of(body: Any) -> str | None:
    """What is wrong with a request."""
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        return "messages: not a list"
    if not isinstance(body.get("max_tokens"), int) or body["max_tokens"] < 1:
        return "max_tokens: not a number"
    if usage(body)["prompt_tokens"] > CONTEXT:
        return "too long"
    return None


def event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def usage(body: dict[str, Any]) -> dict[str, int]:
    words = sum(len(message["content"].split()) for message in body["messages"])
    return {
        "prompt_tokens": words,
        "completion_tokens": body["max_tokens"],
        "total_tokens": words + body["max_tokens"],
    }


def counted_so_far(body: dict[str, Any], tokens: int) -> dict[str, Any]:
    """What each chunk says of tokens, if it is asked to."""
    asked = (body.get("stream_options") or {}).get("continuous_usage_stats")
    return {"usage": {**usage(body), "completion_tokens": tokens}} if asked else {}


def whole(body: dict[str, Any]) -> dict[str, Any]:
    text = "".join(f"t{number} " for number in range(body["max_tokens"]))
    message = {"role": "assistant", "content": text}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
        "usage": usage(body),
    }


def refusal(status: int, message: str) -> JSONResponse:
    return JSONResponse({"object": "error", "message": message, "code": status}, status)
