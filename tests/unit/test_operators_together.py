"""Two operators, and schedulers that do not answer: nobody's change is lost unseen, and none comes
unasked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from starlette.requests import Request

from oea_server.observe import applying
from oea_server.observe.applying import RefusalError
from tests.unit.replicas import Replicas, app_of


def test_of_two_operators_the_later_is_told() -> None:
    replicas = Replicas()
    client = TestClient(app_of(replicas))
    seen = client.get("/oea/config").headers["etag"]
    first = client.put("/oea/config", json={"k0": 4}, headers={"If-Match": seen})
    assert (first.status_code, first.headers["etag"]) == (200, '"1"')
    second = client.put("/oea/config", json={"k0": 2}, headers={"If-Match": seen})
    assert second.status_code == 412
    assert second.json()["error"].startswith(
        "If-Match: the version is 1 by now; nothing changed; GET /oea/config"
    )
    assert replicas.now[0]["settings"]["k0"] == "4"
    assert client.put("/oea/config", json={"k0": 2}, headers={"If-Match": '"1"'}).status_code == 200
    # who does not ask is not held up
    assert client.put("/oea/config", json={"k0": 3}).status_code == 200


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (None, True),
        ("*", True),
        ('"7"', True),
        ('"6", "7"', True),
        ('"6","8"', False),
        ('W/"7"', False),
        ("7", False),
        ("", False),
        ('"07"', False),
        ('"\u0667"', False),
    ],
)
def test_if_match_names_versions(wanted: str | None, matches: bool) -> None:
    assert applying.matches(wanted, 7) == matches


class Stalled(Replicas):
    """Schedulers that answer once they are let."""

    def __init__(self, stalls: str) -> None:
        super().__init__()
        self.stalls = stalls
        self.let = asyncio.Event()
        self.changes = 0

    async def states(self) -> list[dict[str, Any]]:
        if self.stalls == "states":
            await self.let.wait()
        return await super().states()

    async def change(self, knobs: Mapping[str, Any]) -> list[bool]:
        if self.stalls == "change":
            await self.let.wait()
        self.changes += 1
        return await super().change(knobs)


def request(left: bool = False) -> Request:
    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "method": "PUT", "headers": []}, receive)


@pytest.mark.parametrize(
    ("stalls", "what", "changes"),
    [("states", "nothing changed", 0), ("change", "it may still be applied", 1)],
)
def test_schedulers_that_do_not_answer_are_a_504(
    stalls: str, what: str, changes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "PATIENCE", 0.05)

    async def ask() -> Stalled:
        schedulers = Stalled(stalls)
        with pytest.raises(RefusalError, match=f"did not answer in 0 s; {what}") as refused:
            await applying.apply(schedulers, {"k0": "4"}, request())
        assert refused.value.status == 504
        schedulers.let.set()
        await asyncio.sleep(0.05)
        return schedulers

    assert asyncio.run(ask()).changes == changes


def test_a_client_that_has_left_changes_nothing() -> None:
    async def ask() -> Stalled:
        schedulers = Stalled("states")
        leaving = asyncio.create_task(applying.apply(schedulers, {"k0": "4"}, request(left=True)))
        await asyncio.sleep(0.05)
        schedulers.let.set()
        with pytest.raises(RefusalError, match="the client left before its turn"):
            await leaving
        return schedulers

    assert asyncio.run(ask()).changes == 0


def test_a_stalled_change_does_not_hold_up_the_next_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(applying, "PATIENCE", 0.05)

    async def ask() -> list[int]:
        schedulers = Stalled("change")
        transport = httpx.ASGITransport(app_of(schedulers))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            replies = await asyncio.gather(
                *(client.put("/oea/config", json={"k0": k0}) for k0 in (2, 3))
            )
            schedulers.let.set()
            last = await client.put("/oea/config", json={"k0": 4})
        return [each.status_code for each in (*replies, last)]

    assert asyncio.run(ask()) == [504, 504, 200]
