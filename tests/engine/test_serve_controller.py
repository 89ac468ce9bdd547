"""The controller on the real server: it moves among its rungs, keeps the floor, and stands back for
a hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from oea_server_demo import MODEL

from oea_server.client.server import Server
from oea_server.controller.keeper import LAG, PERIOD
from tests.documents.asking import all_of
from tests.documents.checkout import laid_out
from tests.documents.ledger import CONTROLLED
from tests.servers import COMMON, Servers

RUNGS = Path(__file__).parents[2] / "deploy/rungs/demo.json"
CHATS = 8
pytestmark = [pytest.mark.server("own"), pytest.mark.nightly]


@pytest.fixture(scope="module")
def stop() -> threading.Event:
    """Ends the chats."""
    return threading.Event()


@pytest.fixture(scope="module")
def server(servers: Servers, stop: threading.Event) -> Iterator[Server]:
    """With a target that no rung can hold, a floor that allows three, and chats until they are
    stopped."""
    servers.stop()
    flags = (
        "--oea-target-tpot",
        "0.1ms",
        "--oea-rungs",
        str(RUNGS),
        "--oea-quality-floor",
        "0.013nats",
    )
    with Server(
        "--model-path", str(MODEL), "--served-model-name", "demo", *COMMON, *flags
    ) as started:
        chats = [threading.Thread(target=chat, args=(started, stop)) for _ in range(CHATS)]
        for each in chats:
            each.start()
        yield started
        stop.set()
        for each in chats:
            each.join()


def chat(server: Server, stop: threading.Event) -> None:
    asked = {
        "model": "demo",
        "prompt": "go on",
        "max_tokens": 64,
        "ignore_eos": True,
        "stream": True,
    }
    while not stop.is_set():
        with requests.post(
            f"{server.url}/v1/completions", json=asked, stream=True, timeout=60
        ) as reply:
            for _ in reply.iter_lines():
                pass


def controller(server: Server) -> dict[str, Any]:
    state: dict[str, Any] = requests.get(f"{server.url}/oea/controller", timeout=30).json()
    return state


def switch(server: Server, on: bool) -> dict[str, Any]:
    state: dict[str, Any] = requests.put(
        f"{server.url}/oea/controller", json={"on": on}, timeout=60
    ).json()
    return state


def settings(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{server.url}/oea/config", timeout=30).json()["settings"]
    return found


def until(condition: Callable[[], bool], periods: int = 12) -> bool:
    deadline = time.monotonic() + periods * (PERIOD + LAG)
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.5)
    return False


def test_it_goes_down_to_the_floor_and_says_that_the_target_is_out_of_reach(server: Server) -> None:
    assert until(lambda: controller(server)["saturated"])
    state = controller(server)
    assert state["allowed"] == ["vanilla", "k0=6", "k0=5"]
    assert (state["mode"], state["rung"]) == ("on", "k0=5")
    assert (settings(server)["policy"], settings(server)["k0"]) == ("oea", "5")
    metrics = server.metrics()
    assert (metrics["oea_controller_rung"], metrics["oea_controller_saturated"]) == (2, 1)
    assert metrics["oea_controller_error_ratio"] > 0
    assert "controller: rung vanilla -> k0=6" in server.log.read_text(errors="replace")


def test_a_hand_stops_it_and_the_switch_starts_it_at_the_safe_rung(server: Server) -> None:
    requests.put(f"{server.url}/oea/config", json={"k0": 7}, timeout=60).raise_for_status()
    assert until(lambda: controller(server)["mode"] == "by hand")
    assert settings(server)["k0"] == "7"
    assert switch(server, True)["rung"] == "vanilla"
    assert settings(server)["policy"] == "vanilla"
    assert until(lambda: controller(server)["rung"] != "vanilla")


def test_switched_off_the_flags_hold_again(server: Server) -> None:
    assert switch(server, False)["mode"] == "off"
    assert (settings(server)["policy"], settings(server)["k0"]) == ("oea", "auto")
    time.sleep(PERIOD + LAG)
    assert settings(server)["k0"] == "auto"
    assert until(lambda: server.metrics()["oea_controller_on"] == 0)


def test_without_requests_the_safe_rung_serves_in_the_end(
    server: Server, stop: threading.Event
) -> None:
    assert switch(server, True)["mode"] == "on"
    assert until(lambda: controller(server)["rung"] == "k0=5")
    stop.set()
    assert until(lambda: controller(server)["rung"] == "vanilla")
    assert "no data" in controller(server)["reason"]
    assert settings(server)["policy"] == "vanilla"


def test_the_commands_of_its_page_do_what_it_says(server: Server, tmp_path: Path) -> None:
    assert all_of(CONTROLLED, server, laid_out(tmp_path)) == 2
