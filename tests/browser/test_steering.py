"""The controller on the page: which rung serves and why, its switch, and nothing where there is
none."""

from __future__ import annotations

from typing import Any

from tests.browser.page import Page
from tests.browser.test_states import FITS, Serve
from tests.browser.world import World

STATE: dict[str, Any] = {
    **{
        "mode": "on",
        "rung": "k0=5",
        "rungs": ["vanilla", "k0=6", "k0=5", "k0=4"],
        "percentile": None,
    },
    **{
        "allowed": ["vanilla", "k0=6", "k0=5"],
        "reason": "12 % over the target, and quality allows nothing faster",
    },
    **{"target_ms": 25.0, "error": 0.12, "saturated": True},
}


def test_without_a_controller_nothing_of_it_is_shown(page: Page, serve: Serve) -> None:
    serve(World())
    assert not page.shown("steering")
    assert page.errors() == []


def test_it_says_which_rung_serves_and_why(page: Page, serve: Serve) -> None:
    serve(World(controller=dict(STATE)))
    assert page.text("steering-mode") == "k0=5"
    assert page.text("steering-text") == "25\u00a0ms per token: 12\u00a0% over."
    assert "vanilla \u2192 k0=6 \u2192 [k0=5]; below the quality floor: k0=4." in page.text(
        "steering-why"
    )
    assert page.script("return document.getElementById('steering').dataset.trouble") == "true"
    assert page.script(FITS)
    assert page.errors() == []


def test_a_percentile_is_said(page: Page, serve: Serve) -> None:
    serve(World(controller={**STATE, "percentile": 0.95, "error": -0.3, "saturated": False}))
    assert page.text("steering-text") == "95\u00a0% of tokens within 25\u00a0ms: 30\u00a0% below."


def test_it_can_be_switched_off_and_on(page: Page, serve: Serve) -> None:
    stub = serve(World(controller=dict(STATE)), admin_key="secret")
    page.find("steering-switch").click()
    assert page.until(lambda: "Refused (401)" in page.text("steering-answer"), "a refusal")
    page.find("key").send_keys("secret")
    page.find("steering-switch").click()
    assert page.until(lambda: page.text("steering-mode") == "off", "it is off")
    assert page.text("steering-text") == "Would hold 25\u00a0ms per token."
    page.find("steering-switch").click()
    assert page.until(lambda: page.text("steering-mode") == "vanilla", "it is on")
    assert stub.changes == [{"on": False}, {"on": True}]
