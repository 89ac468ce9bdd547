"""Figures of a stream from lines and times, without sockets or clocks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadtest.stream import Stream, StreamError
from loadtest.wire import message_of


def line(**content: Any) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n"


def text(content: str, **more: Any) -> bytes:
    return line(choices=[{"delta": {"content": content}, "finish_reason": None, **more}])


END = line(choices=[{"delta": {}, "finish_reason": "length"}])
USAGE = line(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 5})
DONE = b"data: [DONE]\n"


def read(*lines: tuple[bytes, float]) -> Stream:
    stream = Stream(10.0, 99)
    for each, now in lines:
        stream.line(each, now)
    return stream


def test_figures_are_those_of_sglangs_own_client() -> None:
    role = line(choices=[{"delta": {"role": "assistant", "content": ""}}])
    stream = read(
        (role, 10.5),
        (text("a"), 11.0),
        (b"\n", 11.1),
        (text("b"), 11.5),
        (text("c"), 13.0),
        (END, 13.5),
        (USAGE, 13.6),
        (DONE, 14.0),
    )
    stream.check()
    assert stream.ttft == 1.0  # not the chunk without text
    assert stream.gaps == [0.5, 1.5]
    assert stream.e2e == 4.0  # to the last line
    assert stream.tokens == 5
    assert stream.prompt_tokens == 7
    assert stream.tpot == 3.0 / 4
    assert stream.text == "abc"


def test_thoughts_are_tokens_too() -> None:
    thought = line(choices=[{"delta": {"reasoning_content": "hm"}}])
    assert read((thought, 11.0)).ttft == 1.0


def test_a_comment_keeps_the_connection_and_counts_nothing() -> None:
    assert read((b": ping\n", 11.0)).end is None


def test_one_token_has_no_time_per_token() -> None:
    one = line(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 1})
    assert read((text("a"), 11.0), (END, 11.0), (one, 11.0), (DONE, 11.0)).tpot is None


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([text("a"), END], "ended without"),
        ([text("a"), DONE], "no finish_reason"),
        ([END, DONE], "no text"),
        (
            [text("a"), line(choices=[{"delta": {}, "finish_reason": "abort"}]), DONE],
            "finish_reason abort",
        ),
    ],
)
def test_what_is_missing_is_said(lines: list[bytes], why: str) -> None:
    with pytest.raises(StreamError, match=why):
        read(*((each, 11.0) for each in lines)).check()


@pytest.mark.parametrize("bad", [line(error={"message": "out of memory"}), b"data: {half"])
def test_an_error_in_the_stream_is_raised(bad: bytes) -> None:
    with pytest.raises(StreamError, match=r"out of memory|not JSON"):
        read((bad, 11.0))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"object": "error", "message": "too long", "code": 400}', "too long"),
        (b'{"error": {"message": "too long"}}', "too long"),
        (b'{"error": "Unauthorized"}', "Unauthorized"),
        (b"Bad Gateway", "Bad Gateway"),
        (b"[]", "[]"),
    ],
)
def test_a_refusals_words(body: bytes, said: str) -> None:
    assert message_of(body) == said
