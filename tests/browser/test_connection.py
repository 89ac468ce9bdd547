"""Servers that go away, come back, have another clock, or want a key to be read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser.page import Page
from tests.browser.stub import Stub
from tests.browser.world import World

Serve = Callable[..., Stub]
STORED = "return Object.entries(sessionStorage).concat(Object.entries(localStorage)).flat()"


def test_a_restart_is_survived_and_said(page: Page, serve: Serve) -> None:
    stub = serve(World(version=3))
    stub.stop()
    page.until(lambda: page.state == "lost", "that the server is away")
    assert page.text("link-text") == "Not connected"
    assert page.text("trouble").startswith("Not connected: ")
    assert "What is shown is from" in page.text("trouble")
    assert page.shown("headline")
    stub.world = World(age=5)
    stub.start()
    page.until(lambda: page.state == "live", "that it is back")
    assert not page.shown("trouble")
    assert page.text("version") == "version 0"


@pytest.mark.parametrize(
    "broken",
    [
        (503, "no scheduler has written any statistics"),
        (403, "without a key only this machine may read"),
    ],
)
def test_no_statistics_is_said_in_the_servers_words(
    page: Page, serve: Serve, broken: tuple[int, str]
) -> None:
    stub = serve(World())
    stub.broken = broken
    page.until(lambda: page.state == "lost", "that there are none")
    assert f"{broken[0]}: {broken[1]}" in page.text("trouble")
    stub.broken = None
    page.until(lambda: page.state == "live", "that there are some again")


def test_a_clock_set_back_does_not_stop_the_page(page: Page, serve: Serve) -> None:
    stub = serve(World(age=30))
    stub.world.skew = -3600.0
    page.until(lambda: last_since(stub) < stub.world.now + 5, "asks from the new time on")
    seen = last_since(stub)
    page.until(lambda: last_since(stub) > seen, "new points in the new time")
    stub.world.skew = 0.0
    page.until(lambda: last_since(stub) > stub.world.now - 10, "and forward again")
    assert page.state == "live"
    assert page.errors() == []


@pytest.mark.parametrize("jump", [-3600.0, -300.0, 300.0, 3600.0])
def test_after_a_jump_of_the_clock_the_page_asks_for_all_points_anew(
    page: Page, serve: Serve, jump: float
) -> None:
    stub = serve(World(age=30))
    page.until(lambda: last_since(stub) < 1e12, "a poll for what is new")
    asked = len(stub.requests)
    stub.world.skew = jump

    def whole() -> list[int]:
        polls = [path for _, path, _ in stub.requests[asked:]]
        return [i for i, path in enumerate(polls) if path.endswith("/stats")]

    page.until(whole, "a poll for everything")
    page.until(
        lambda: abs(last_since(stub) - stub.world.now) < 5,
        "and then for what is new by the new clock",
    )
    assert len(whole()) == 1
    assert page.state == "live"
    assert page.errors() == []


def last_since(stub: Stub) -> float:
    polls = [path for _, path, _ in stub.requests if "since=" in path]
    return float(polls[-1].split("since=")[1]) if polls else 1e12


def test_a_hidden_page_asks_nothing(page: Page, serve: Serve) -> None:
    stub = serve(World())
    page.script(
        """Object.defineProperty(
          document, "hidden", { get: () => window.away, configurable: true });
        window.away = true; document.dispatchEvent(new Event("visibilitychange"));"""
    )
    # a poll that was under way
    page.script("return new Promise((resolve) => setTimeout(resolve, 1500))")
    before = len(stub.requests)
    page.script("return new Promise((resolve) => setTimeout(resolve, 3000))")
    assert len(stub.requests) == before
    page.script("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    page.until(lambda: len(stub.requests) > before, "asks again")


def test_a_server_that_wants_a_key_to_be_read(page: Page, serve: Serve) -> None:
    stub = serve(World(), state="locked", key="open sesame".replace(" ", "-"))
    assert page.shown("gate")
    assert not page.shown("content")
    page.find("gate-key").send_keys("wrong" + Keys.ENTER)
    page.until(
        lambda: page.text("gate-answer") == "Refused (401): Unauthorized", "that the key is wrong"
    )
    page.write("gate-key", "open-sesame" + Keys.ENTER)
    page.until(lambda: page.state == "live", "the statistics")
    assert not page.shown("gate")
    assert page.script(STORED) == []
    assert "sesame" not in page.driver.current_url
    assert all("sesame" not in path for _, path, _ in stub.requests)
    # the one key of a server is its key for changes too
    page.find("switch").click()
    page.until(lambda: page.text("switch-answer") == "In force: version 1.", "the change")


def test_a_key_is_kept_only_when_wished_for(page: Page, serve: Serve) -> None:
    stub = serve(World(), admin_key="secret")
    page.write("key", "secret")
    assert page.script(STORED) == []
    page.find("keep").click()
    assert page.script(STORED) == ["oea-admin-key", "secret"]
    page.open(stub.url)
    assert page.find("key").get_attribute("value") == "secret"
    page.find("keep").click()
    assert page.script(STORED) == []
