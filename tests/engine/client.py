"""What the official client expects of a server, on one rank and on several."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from oea_server.client.server import Server

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


class OfficialClient:
    """Subclassed beside a `server` fixture."""

    def test_chat(self, server: Server) -> None:
        reply = server.client.chat.completions.create(
            model="demo", messages=HELLO, max_tokens=9, temperature=0
        )
        assert reply.choices[0].finish_reason == "length"
        assert reply.usage is not None
        assert reply.usage.completion_tokens == 9
        assert reply.choices[0].message.content

    def test_streaming_gives_what_not_streaming_gives(self, server: Server) -> None:
        asked: dict[str, Any] = {
            "model": "demo",
            "messages": HELLO,
            "max_tokens": 30,
            "temperature": 0,
        }
        whole = server.client.chat.completions.create(**asked).choices[0].message.content
        chunks = [
            chunk.choices[0].delta.content or ""
            for chunk in server.client.chat.completions.create(stream=True, **asked)
            if chunk.choices
        ]
        assert len(chunks) > 10
        assert "".join(chunks) == whole

    def test_stop_cuts_the_answer(self, server: Server) -> None:
        asked: dict[str, Any] = {
            "model": "demo",
            "messages": HELLO,
            "max_tokens": 40,
            "temperature": 0,
        }
        whole = server.client.chat.completions.create(**asked).choices[0].message.content or ""
        word = whole[len(whole) // 2 :][:4]
        cut = server.client.chat.completions.create(stop=[word], **asked)
        assert cut.choices[0].finish_reason == "stop"
        assert cut.choices[0].message.content == whole[: whole.index(word)]

    # "[]" is left out: SGLang itself answers it with a 500
    @pytest.mark.parametrize(
        "body", ['{"model": "demo", "messages": [', '{"model": "demo"}', '{"messages": 3}']
    )
    def test_malformed_requests_get_a_4xx(self, server: Server, body: str) -> None:
        reply = requests.post(
            f"{server.url}/v1/chat/completions",
            data=body,
            headers={"content-type": "application/json"},
            timeout=30,
        )
        assert 400 <= reply.status_code < 500

    def test_a_wrong_model_is_answered_as_sglang_answers_it(self, server: Server) -> None:
        """SGLang serves one model and answers for any name (0.5.17 to 0.5.23); so do we."""
        reply = server.client.chat.completions.create(
            model="nonsense", messages=HELLO, max_tokens=2
        )
        assert reply.usage is not None
        assert reply.usage.completion_tokens == 2
