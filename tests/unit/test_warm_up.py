"""Whose a request is: the server's own, or a user's."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any

import pytest

from oea_server.engine import warmup

OVER_GRPC = SimpleNamespace(headers={})
"""`_GrpcRequest` of SGLang's `grpc_bridge`."""
UP, STARTING = (
    SimpleNamespace(server_status=SimpleNamespace(name=name)) for name in ("Up", "Starting")
)


def asked(path: str, root_path: str = "", **headers: str) -> SimpleNamespace:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return SimpleNamespace(scope={"path": root_path + path, "root_path": root_path}, headers=sent)


def named(manager: SimpleNamespace, request: Any, rid: Any = None) -> Any:
    """A request's id, once it has arrived."""
    arrived = SimpleNamespace(rid=rid)
    warmup.before_generate_request(manager, arrived, request)
    return arrived.rid


@pytest.fixture
def word(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(warmup.VARIABLE, "")
    warmup.choose_word()
    return os.environ[warmup.VARIABLE]


@pytest.mark.parametrize("manager", [STARTING, UP], ids=["starting", "up"])
def test_a_warm_up_is_known_whichever_worker_gets_it(manager: SimpleNamespace, word: str) -> None:
    """Of two workers the one that is up may get the other's."""
    sent = asked("/generate", x_oea_warm_up=word)
    assert str(named(manager, sent)).startswith(warmup.WARMUP_PREFIX)
    assert named(manager, sent, "mine") == "mine"


@pytest.mark.parametrize("manager", [STARTING, UP], ids=["starting", "up"])
@pytest.mark.parametrize("headers", [{}, {"x_oea_warm_up": "guessed"}, {"x_oea_warm_up": ""}])
def test_without_the_word_it_is_traffic(
    manager: SimpleNamespace, headers: dict[str, str], word: str
) -> None:
    assert word
    assert named(manager, asked("/generate", **headers)) is None


def test_each_start_has_a_word_of_its_own(word: str) -> None:
    warmup.choose_word()
    assert os.environ[warmup.VARIABLE] != word
    assert named(UP, asked("/generate", x_oea_warm_up=word)) is None


def test_where_no_word_was_chosen_nobody_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(warmup.VARIABLE, raising=False)
    assert named(UP, asked("/generate", x_oea_warm_up="")) is None


def test_from_inside_it_is_a_warm_up_until_the_server_is_up() -> None:
    assert str(named(STARTING, None)).startswith(warmup.WARMUP_PREFIX)
    assert named(UP, None) is None


def test_what_the_server_sends_to_itself_has_the_word(word: str) -> None:
    sent: list[dict[str, str]] = []

    def post(url: str, headers: dict[str, str] | None = None, timeout: int = 0) -> None:
        sent.append(headers or {})

    async def disaggregated(url: str, headers: dict[str, str]) -> None:
        sent.append(headers)

    http_server = SimpleNamespace(
        requests=SimpleNamespace(
            get=post, post=post, exceptions=SimpleNamespace(RequestException=OSError)
        ),
        _send_disaggregation_warmup_requests=disaggregated,
    )
    warmup.sign(http_server)
    theirs = {"Authorization": "Bearer key"}
    http_server.requests.post("http://x/generate", headers=theirs, timeout=1)
    http_server.requests.post("http://x/generate")
    asyncio.run(http_server._send_disaggregation_warmup_requests(url="http://x", headers=theirs))
    assert sent == [
        theirs | {warmup.HEADER: word},
        {warmup.HEADER: word},
        theirs | {warmup.HEADER: word},
    ]
    assert theirs == {"Authorization": "Bearer key"}
    assert http_server.requests.exceptions.RequestException is OSError


def test_a_request_over_grpc_is_traffic_whatever_its_id() -> None:
    assert named(STARTING, OVER_GRPC) is None
    assert named(UP, OVER_GRPC, "mine") == "mine"
    with pytest.raises(ValueError, match=r"^rid: "):
        named(UP, OVER_GRPC, "HEALTH_CHECK_1")


@pytest.mark.parametrize(
    "rid", ["OEA_WARMUP", "OEA_WARMUP_1", "HEALTH_CHECK_1", ["mine", "HEALTH_CHECK"]]
)
@pytest.mark.parametrize("manager", [STARTING, UP], ids=["starting", "up"])
def test_nobody_names_a_request_as_the_server_names_its_own(
    rid: Any, manager: SimpleNamespace
) -> None:
    with pytest.raises(ValueError, match=r"^rid: OEA_WARMUP and HEALTH_CHECK begin the ids"):
        named(manager, asked("/generate"), rid)
    for root in ("", "/pre"):
        named(manager, asked("/health_generate", root), rid)
    named(manager, None, rid)  # SGLang's own, from inside
    for theirs in ("mine", ["a", "b"], "", 5):
        named(manager, asked("/generate"), theirs)
