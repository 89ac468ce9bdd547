"""The page on a real server, under load."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from oea_server.client.server import Server
from tests.browser.page import Page
from tests.servers import KEY, Servers

pytestmark = pytest.mark.server("oea")

CHATS = 8


@pytest.fixture(scope="module")
def server(driver: object, servers: Servers) -> Iterator[Server]:
    """After the browser: where there is none, no server is started for nothing. Left as it was
    started."""
    started = servers.get("oea")
    yield started
    change(started, config(started)["started_with"])


@pytest.fixture(scope="module")
def load(server: Server) -> Iterator[None]:
    """Chats that never end while the tests run."""
    enough = threading.Event()

    def chat(number: int) -> None:
        body = {
            "model": "demo",
            "messages": [{"role": "user", "content": f"Tell {number}"}],
            "max_tokens": 200,
        }
        while not enough.is_set():
            reply = requests.post(
                f"{server.url}/v1/chat/completions", json={**body, "ignore_eos": True}, timeout=120
            )
            reply.raise_for_status()

    threads = [
        threading.Thread(target=chat, args=(number,), daemon=True) for number in range(CHATS)
    ]
    for thread in threads:
        thread.start()
    yield
    enough.set()
    for thread in threads:
        thread.join(120)


@pytest.fixture
def live(page: Page, server: Server, load: None) -> Iterator[Page]:
    """The page, when it shows numbers, with the server as it was started."""
    change(server, config(server)["started_with"])
    page.open(f"{server.url}/oea")
    page.until(lambda: page.text("headline").startswith("A decode step reads "), "numbers")
    yield page
    page.driver.get("about:blank")


def config(server: Server) -> dict[str, Any]:
    answer: dict[str, Any] = requests.get(f"{server.url}/oea/config", timeout=30).json()
    return answer


def change(server: Server, settings: dict[str, Any]) -> None:
    key = {"Authorization": f"Bearer {KEY}"}
    reply = requests.put(f"{server.url}/oea/config", json=settings, headers=key, timeout=30)
    assert reply.status_code == 200, reply.text


def test_numbers_move_and_nothing_is_wrong(live: Page) -> None:
    def numbers() -> str:
        return live.text("chart-read") + live.text("figures")

    assert "of 128 experts per layer; without batch-aware routing it would read" in live.text(
        "headline"
    )
    assert live.text("model") == "4 MoE layers, 128 experts, top 8"
    before = numbers()
    live.until(lambda: numbers() != before, "other numbers")
    live.until(lambda: "mean" in live.text("chart-distribution"), "a distribution")
    assert "prefill" in live.text("bypassed")
    assert live.errors() == []


def test_nothing_is_fetched_from_elsewhere(live: Page, server: Server) -> None:
    names = live.script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert names
    assert all(name.startswith(f"{server.url}/oea/") for name in names), names


def shown(live: Page, server: Server) -> dict[str, Any]:
    """The server's configuration, once the page shows it: an edit of an earlier one would be
    refused."""
    now = config(server)
    live.until(lambda: live.text("version") == f"version {now['version']}", "the version in effect")
    return now


def test_a_knob_changed_on_the_page_changes_the_server(live: Page, server: Server) -> None:
    before = shown(live, server)
    live.write("key", KEY)
    live.write("knob-k0", "5")
    live.find("apply").click()
    live.until(lambda: live.text("knobs-answer").startswith("In force"), "that it was taken")
    after = config(server)
    assert after["settings"] == {**before["settings"], "k0": "5"}
    assert after["version"] > before["version"]
    live.until(lambda: live.text("version") == f"version {after['version']}", "the new version")


def test_off_is_one_click_and_shows(live: Page, server: Server) -> None:
    live.write("key", KEY)
    live.find("switch").click()
    live.until(
        lambda: live.text("headline").startswith("OEA is off. A decode step reads "),
        "vanilla's numbers",
    )
    assert config(server)["settings"]["policy"] == "vanilla"
    live.find("switch").click()
    live.until(lambda: "less to read" in live.text("headline"), "less to read again")
    assert config(server)["settings"]["policy"] == "oea"


def test_shadow_shows_what_oea_would_read(live: Page, server: Server) -> None:
    change(server, {"policy": "shadow"})
    live.until(
        lambda: live.text("headline").startswith("Serving vanilla. With these knobs OEA would"),
        "a prediction",
    )
    # its first steps may be of two or three chats, which share nothing
    live.until(lambda: "less to read" in live.text("headline"), "less to read")


def test_a_wrong_key_is_refused_and_said(live: Page, server: Server) -> None:
    before = config(server)
    live.write("key", "guessed")
    live.find("switch").click()
    live.until(
        lambda: live.text("switch-answer").startswith("Refused (401): Unauthorized"), "the refusal"
    )
    assert config(server) == before


@pytest.mark.parametrize(
    ("knob", "value", "status"), [("k0", "9", 409), ("p", "lots", 422), ("k_max", 2, 409)]
)
def test_what_the_server_refuses_is_shown_in_its_words(
    live: Page, server: Server, knob: str, value: str | int, status: int
) -> None:
    before = shown(live, server)
    headers = {"Authorization": f"Bearer {KEY}"}
    reply = requests.put(
        f"{server.url}/oea/config", json={knob: value}, headers=headers, timeout=30
    )
    assert reply.status_code == status, reply.text
    live.write("key", KEY)
    live.write(f"knob-{knob}", str(value))
    live.find("apply").click()
    live.until(lambda: live.text("knobs-answer").startswith(f"Refused ({status}): "), "the refusal")
    assert (
        live.script("return document.querySelector('#knobs-answer q').textContent")
        == reply.json()["error"]
    )
    assert config(server)["settings"] == before["settings"]


def test_by_keyboard_alone(live: Page, server: Server) -> None:
    def press(*keys: str) -> None:
        ActionChains(live.driver).send_keys(*keys).perform()

    def walk(name: str) -> None:
        for _ in range(30):
            press(Keys.TAB)
            if live.script("return document.activeElement.id") == name:
                return
        raise AssertionError(f"{name} cannot be reached by Tab")

    shown(live, server)
    walk("key")
    press(KEY)
    walk("knob-min_batch")
    press("3", Keys.ENTER)
    live.until(lambda: live.text("knobs-answer").startswith("In force"), "that it was taken")
    assert config(server)["settings"]["min_batch"] == 3
