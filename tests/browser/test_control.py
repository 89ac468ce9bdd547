"""What is changed on the page, and what the server refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from oea_server.observe import change
from oea_server.settings import LIVE, POLICIES
from tests.browser.chromium import window
from tests.browser.page import Page
from tests.browser.stub import Stub
from tests.browser.world import DEFAULTS, World

Serve = Callable[..., Stub]


def test_off_and_on_are_one_click_each(page: Page, serve: Serve) -> None:
    stub = serve(World())
    page.find("switch").click()
    page.until(lambda: page.text("switch-answer") == "In force: version 1.", "off")
    assert page.text("switch") == "Turn OEA on"
    assert page.text("serving") == "vanilla"
    page.find("switch").click()
    page.until(lambda: page.text("switch-answer") == "In force: version 2.", "on")
    assert stub.changes == [{"policy": "vanilla"}, {"policy": "oea"}]
    assert all(authorization == "" for _, _, authorization in stub.requests)


def test_only_what_was_edited_is_sent_and_numbers_are_numbers(page: Page, serve: Serve) -> None:
    stub = serve(World())
    page.write("knob-k0", "1:8,16:4")
    page.write("knob-k_max", "6")
    page.write("knob-p", "0.9")
    page.find("apply").click()
    page.until(lambda: page.text("knobs-answer") == "In force: version 1.", "the change")
    page.write("knob-k_max", "")
    page.find("apply").click()
    page.until(lambda: page.text("knobs-answer") == "In force: version 2.", "the second change")
    assert stub.changes == [{"k0": "1:8,16:4", "p": 0.9, "k_max": 6}, {"k_max": None}]
    page.find("apply").click()
    assert page.text("knobs-answer") == "Nothing was edited."


def test_a_schedule_of_shares_is_sent_as_it_is_typed_and_what_is_in_force_is_told(
    page: Page, serve: Serve
) -> None:
    sizes = ("1", "2", "4", "8", "16", "32", "64", "128")
    shares = dict.fromkeys(sizes, 0.0) | {"16": 0.13}
    stub = serve(
        World(by_batch={"share_by_batch": shares, "mix_by_batch": dict.fromkeys(sizes, 1.0)})
    )
    page.write("knob-share", "1:0,16:0.13")
    page.write("knob-mix", "0.5")
    page.find("apply").click()
    page.until(lambda: page.text("knobs-answer") == "In force: version 1.", "the change")
    assert stub.changes == [{"share": "1:0,16:0.13", "mix": "0.5"}]
    rows = page.script(
        "return [...document.getElementById('k0-by-batch').rows].map((row) =>"
        " row.innerText.split(/\\s+/))"
    )
    assert [row[0] for row in rows] == ["tokens", "k0", "share"]  # the mixture changes nothing
    assert rows[2] == ["share", "0", "0", "0", "0", "0.13", "0", "0", "0"]


def test_the_fields_are_those_of_the_schema_that_the_server_tells(page: Page, serve: Serve) -> None:
    more = {
        "patience": {
            "title": "Patience",
            "description": "steps that an expert stays awake",
            "anyOf": [{"type": "integer", "minimum": 1, "maximum": 9}, {"type": "null"}],
            "unset": "for ever",
            "default": None,
        },
        "strict": {"title": "strict", "description": "no rest", "type": "boolean", "default": True},
    }
    settings = {**DEFAULTS, "patience": None, "strict": True}
    schema = {**change.SCHEMA, "properties": {**change.SCHEMA["properties"], **more}}
    stub = serve(World(settings=settings, schema=schema))
    names = page.script(
        "return [...document.querySelectorAll('#fields [name]')].map((each) => each.name)"
    )
    assert names == [*LIVE, "patience", "strict"]
    assert page.text("knob-patience-help") == "Steps that an expert stays awake. From 1 to 9."
    assert page.find("knob-patience").get_attribute("placeholder") == "for ever"
    assert page.script("return document.querySelector('[for=knob-patience]').innerText") == (
        "Patience"
    )
    page.write("knob-patience", "3")
    page.choose("knob-strict", "false")
    page.find("apply").click()
    page.until(lambda: page.text("knobs-answer") == "In force: version 1.", "the change")
    assert stub.changes == [{"patience": 3, "strict": False}]
    assert page.errors() == []


def test_each_field_says_what_it_holds_in_the_words_of_its_flag(page: Page, serve: Serve) -> None:
    serve(World())
    options = "return [...document.getElementById('knob-policy').options].map((each) => each.value)"
    assert page.script(options) == list(POLICIES)
    assert page.text("knob-policy-help") == "batch-aware routing decides"
    assert page.text("knob-seed-help") == "Seed of the random policy. From 0 to 2147483647."
    assert page.text("knob-p-help").endswith("reach this router mass. Above 0 to 1.")
    assert page.text("knob-share-help").endswith("all of them. From 0 to below 1.")
    empty = {name: page.find(f"knob-{name}").get_attribute("placeholder") for name in LIVE}
    assert {name: words for name, words in empty.items() if words} == {
        **{"k_max": "top k", "max_rank": "all", "rank_budget": "none", "draft_k0": "as k0"},
        **{"tiers": "none", "default_tier": "none"},
    }


@pytest.mark.parametrize("status", [403, 409, 413, 422])
def test_a_refusal_stands_beside_the_form_word_by_word(
    page: Page, serve: Serve, status: int
) -> None:
    stub = serve(World())
    stub.refuse = (status, "min_batch=two:  a whole number, please")
    page.write("knob-min_batch", "two")
    page.find("apply").click()
    page.until(lambda: page.text("knobs-answer").startswith(f"Refused ({status}): "), "the refusal")
    assert (
        page.script("return document.querySelector('#knobs-answer q').textContent")
        == stub.refuse[1]
    )
    assert stub.changes == [{"min_batch": "two"}]
    assert page.find("knob-min_batch").get_attribute("value") == "two"
    assert page.text("version") == "version 0"


def test_a_wrong_key_is_said_and_asked_for(page: Page, serve: Serve) -> None:
    stub = serve(World(), admin_key="secret")
    page.find("switch").click()
    page.until(
        lambda: page.text("switch-answer").startswith("Refused (401): Unauthorized"), "the refusal"
    )
    assert page.driver.switch_to.active_element.get_attribute("id") == "key"
    page.write("key", "secret")
    page.find("switch").click()
    page.until(lambda: page.text("switch-answer") == "In force: version 1.", "the change")
    assert stub.requests[-1][2] in ("Bearer secret", "")
    assert ("PUT", "/oea/config", "Bearer secret") in stub.requests


def test_edits_survive_a_change_from_elsewhere(page: Page, serve: Serve) -> None:
    stub = serve(World())
    page.write("knob-k0", "4")
    stub.world.change({"min_batch": 5})
    page.until(
        lambda: page.find("knob-min_batch").get_attribute("value") == "5", "the server's new value"
    )
    assert page.find("knob-k0").get_attribute("value") == "4"
    assert "your edits are kept" in page.text("elsewhere")
    page.find("reset").click()
    assert page.find("knob-k0").get_attribute("value") == "auto"


def test_all_of_it_by_keyboard_on_a_small_screen(page: Page, serve: Serve) -> None:
    window(page.driver, 390, 844)
    stub = serve(World(), admin_key="secret")
    press(page, Keys.TAB)  # the skip link
    press(page, Keys.ENTER)
    walk(page, "switch")
    walk(page, "key")
    press(page, "secret")
    walk(page, "knobs-details")
    press(page, Keys.ENTER)
    walk(page, "knob-k0")
    press(page, "5", Keys.ENTER)  # Tab has selected what was there
    page.until(lambda: page.text("knobs-answer") == "In force: version 1.", "the change")
    assert stub.changes == [{"k0": "5"}]
    walk(page, "chart-read")
    press(page, Keys.ARROW_LEFT)
    page.until(lambda: "version" in page.text("chart-read"), "the values under the cursor")
    assert "vanilla would" in page.script("return document.getElementById('readout').textContent")
    press(page, Keys.ESCAPE)
    assert "version" not in page.text("chart-read")


def press(page: Page, *keys: str) -> None:
    ActionChains(page.driver).send_keys(*keys).perform()


def walk(page: Page, name: str) -> None:
    """Tab to an element, or into the one that bears the name; whoever has the focus must show
    it."""
    for _ in range(30):
        press(page, Keys.TAB)
        here = page.script("""const { activeElement: at } = document, style = getComputedStyle(at);
            const seen = style.outlineStyle !== "none" && style.outlineWidth !== "0px";
            return [at.id || at.closest("[id]")?.id || "", seen]""")
        assert here[1], f"no focus to be seen on {here[0]}"
        if here[0] == name:
            return
    raise AssertionError(f"{name} cannot be reached by Tab")


def test_a_long_help_is_whole_from_the_first_use_of_its_field_on(serve: Serve, page: Page) -> None:
    """For good: were it cut again, what stands below would move while it is clicked."""

    def cut() -> bool:
        help = "const help = document.getElementById('knob-pool-help');"
        return bool(page.script(f"{help} return help.scrollHeight > help.clientHeight;"))

    serve(World())
    assert cut()
    page.script("document.getElementById('knob-pool').focus()")
    assert not cut()
    page.script("document.getElementById('knob-k0').focus()")
    assert not cut()
