"""One streamed chat as its client sees it: bytes and times in, figures out. No sockets, so that
gevent's and asyncio's clients measure by the same lines.

The figures are those of `sglang.benchmark.serving`, so that they can be compared: the first token
is the first chunk with text in it, the end is the last line of the stream, TPOT is (end - first) /
(tokens - 1), and ITL the gaps between chunks with text."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

DATA = b"data:"
DONE = b"[DONE]"
TEXTS = ("content", "reasoning_content")


class StreamError(Exception):
    """The stream said that something went wrong, or ended before it was done."""


@dataclass(slots=True)
class Stream:
    """A chat completion that is being read. All times in seconds, on one monotonic clock.

    Args:
        sent: when the request was sent, or in an open loop when it should have been.
        asked: tokens asked for, which count where the server sends no usage.
        counts: tokens by each chunk with text, where the server was asked to say it with every
            chunk (`stream_options.continuous_usage_stats`): one with half a character has no text.
    """

    sent: float
    asked: int
    first: float | None = None
    end: float | None = None
    gaps: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    done: bool = False
    _latest: float = 0.0

    def line(self, line: bytes, now: float) -> bool:
        """Read a line of the body, which came at `now`. Whether text was in it.

        Raises:
            StreamError: it reports an error, as the official client would raise it.
        """
        if not line.startswith(DATA):
            # a blank line between two events, or a comment that keeps the connection alive
            return False
        data = line[len(DATA) :].strip()
        self.end = now
        if data == DONE:
            self.done = True
            return False
        try:
            event = json.loads(data)
        except ValueError:
            raise StreamError(f"not JSON: {data[:100]!r}") from None
        if event.get("error"):
            raise StreamError(str(event["error"])[:200])
        self.usage = event.get("usage") or self.usage
        text = ""
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            text += "".join(delta.get(name) or "" for name in TEXTS)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if text:
            self.texts.append(text)
            if self.usage:
                self.counts.append(int(self.usage["completion_tokens"]))
            if self.first is None:
                self.first = now
            else:
                self.gaps.append(now - self._latest)
            self._latest = now
        return bool(text)

    def check(self) -> None:
        """That the answer is whole.

        Raises:
            StreamError: it is not: what is missing.
        """
        if not self.done:
            raise StreamError("the stream ended without [DONE]")
        if self.finish_reason is None:
            raise StreamError("no finish_reason")
        if self.finish_reason not in ("length", "stop"):
            raise StreamError(f"finish_reason {self.finish_reason}")
        if self.first is None:
            raise StreamError("no text")

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def tokens(self) -> int:
        """Tokens of the answer: the server's count."""
        return int(self.usage["completion_tokens"]) if self.usage else self.asked

    @property
    def prompt_tokens(self) -> int | None:
        return int(self.usage["prompt_tokens"]) if self.usage else None

    @property
    def ttft(self) -> float | None:
        return None if self.first is None else self.first - self.sent

    @property
    def e2e(self) -> float | None:
        return None if self.end is None else self.end - self.sent

    @property
    def tpot(self) -> float | None:
        """The mean after the first token; None for an answer of one token."""
        if self.end is None or self.first is None or self.tokens < 2:
            return None
        return (self.end - self.first) / (self.tokens - 1)
